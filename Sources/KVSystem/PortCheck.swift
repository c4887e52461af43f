// Whether an address can be listened on, asked before a server is started.

import CKernel
import Glibc
import KVModel

/// Listens on an address and lets it go at once: throws what a server would meet there (in use, not this machine's, not
/// allowed).
///
/// - Parameter port: 0 asks for any port, which only a wrong address can fail.
public func checkCanListen(on address: String, port: UInt16) throws(SystemError) {
    let descriptor = unsafe hf_tcp_listen(address, port, 1)
    hf_close(try checked(descriptor, "listen on \(address):\(port)"))
}

/// Connects to an address and lets it go at once: throws when nobody answers there.
public func checkCanReach(_ address: String, port: UInt16, within limit: Duration) throws(SystemError) {
    let place = "\(address):\(port)"
    let descriptor = unsafe try checked(hf_tcp_connect(address, port), "connect to \(place)")
    defer { hf_close(descriptor) }
    var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    guard unsafe poll(&waiting, 1, Int32(clamping: limit.nanoseconds / 1_000_000)) > 0 else {
        throw SystemError(number: ETIMEDOUT, doing: "connect to \(place)")
    }
    _ = try checked(hf_socket_error(descriptor), "connect to \(place)")
}

/// Whether a process listens on a local socket.
public func canConnect(toSocket path: String) -> Bool {
    let descriptor = unsafe hf_unix_connect(path)
    if descriptor >= 0 { hf_close(descriptor) }
    return descriptor >= 0
}
