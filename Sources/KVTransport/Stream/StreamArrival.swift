// What a stream brings: frames, payloads, and its end.

import KVModel

/// What came over a stream.
@safe
package enum StreamArrival {
    /// A frame. The body is valid until the next call.
    case frame(FrameHeader, body: UnsafeRawBufferPointer)
    /// The payload is whole; the checksum of what came, begun as the owner said.
    case payload(checksum: UInt64)
    /// Nothing more is there now, or nothing more is wanted now.
    case nothing
    /// There may be more, but others should have their turn.
    case turnIsOver
    /// The connection has ended.
    case ended(StreamEnd)
}

/// How a connection ended.
package enum StreamEnd: Equatable {
    /// The peer closed it between two frames.
    case closed
    /// The peer closed it in the middle of something.
    case cutShort
    /// The socket failed, with the kernel's error number.
    case failed(Int32)
}
