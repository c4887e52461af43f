// The least that can stand behind a server transport: blocks that lie in memory. What the transport costs is then all
// that is measured.

import KVModel
import KVSystem
import KVTransport
import Synchronization

/// Blocks of one size, at their places in one region.
final class MemoryHost: SessionHost {
    let memory: BlockMemory
    let blockBytes: Int
    /// The checksum of each block.
    let checksums: [UInt64]
    private let server = Mutex<TCPServer?>(nil)
    static let secret = [UInt8](repeating: 1, count: 32)

    /// Serves what lies in the memory.
    init(memory: BlockMemory, blockBytes: Int) throws {
        self.memory = memory
        self.blockBytes = blockBytes
        let count = unsafe memory.regions[0].count / blockBytes
        checksums = (0..<count).map { block in
            unsafe BlockChecksum.of(
                Self.name(block),
                UnsafeRawBufferPointer(memory[MemorySlice(offset: block * blockBytes, count: blockBytes)]))
        }
        let made = try TCPServer(
            TCPServerConfiguration(
                address: "127.0.0.1", port: 0, laneCount: 1, socketBufferBytes: 0, limits: .standard),
            transport: 1, host: self)
        server.withLock { $0 = made }
    }

    var port: UInt16 { server.withLock { $0!.port } }

    func shutDown() { server.withLock { $0.take() }?.shutDown() }

    static func name(_ block: Int) -> ObjectName { ObjectName(FullKey(UInt64(block), 1, 2, 3)) }

    func secret(ofTenant tenant: String) -> [UInt8]? { Self.secret }

    func deliver(_ event: SessionEvent) -> Acceptance {
        switch event {
        case .opened, .closed, .sent: return .accepted
        case .received(let request, let outcome):
            return post(.reply(request, Response(outcome == .whole ? .ok : .corrupt)))
        case .request(let request, let asked): return answer(request, asked)
        }
    }

    private func answer(_ request: RequestID, _ asked: Request) -> Acceptance {
        switch asked {
        case .openNamespace: return post(.reply(request, Response(.ok, .namespace(1))))
        case .get(_, let name):
            let block = Int(name.key[0])
            let body = ResponseBody.object(
                payloadBytes: blockBytes, checksum: checksums[block], ObjectMetadata())
            return post(.send(request, Response(.ok, body), from: slice(block)))
        case .put(_, let name, _, _, _): return post(.receive(request, into: slice(Int(name.key[0]))))
        case .lookUp(_, let names):
            var words = [UInt64](repeating: 0, count: (names.count + 63) / 64)
            for (place, name) in names.enumerated() where Int(name.key[0]) < checksums.count {
                words[place / 64] |= 1 << UInt64(place % 64)
            }
            return post(.reply(request, Response(.ok, .presence(words))))
        default: return post(.reply(request, Response(.invalid)))
        }
    }

    private func slice(_ block: Int) -> MemorySlice { MemorySlice(offset: block * blockBytes, count: blockBytes) }

    private func post(_ command: SessionCommand) -> Acceptance { server.withLock { $0?.post(command) ?? .accepted } }
}
