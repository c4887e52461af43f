// A file through the store: cut into blocks, put, got back, compared. What an operator tries first.

import ArgumentParser
import Crypto
import Foundation
import KVIdentity
import KVModel
import KVSettings
import KVStore
import KVSystem
import KVTransport

/// A file as a chain of blocks, whose keys are made of their contents.
struct FileChain {
    let blocks: [Data]
    let names: [ObjectName]

    init(file: String, blockBytes: Int) throws(OperatorError) {
        let contents = Data(try NamedFile(file).bytes())
        guard !contents.isEmpty else { throw OperatorError("is empty", at: file) }
        blocks = stride(from: 0, to: contents.count, by: blockBytes).map {
            Data(contents[$0..<min($0 + blockBytes, contents.count)])
        }
        let identity = BlockIdentity(namespaceDigest: Array(SHA256.hash(data: Data("holdfast ctl put".utf8))))
        var chained: [UInt8] = []
        names = blocks.map { block in
            var hash = SHA256()
            hash.update(data: chained)
            hash.update(data: block)
            chained = Array(hash.finalize())
            return ObjectName(identity.engineKey(hash: chained))
        }
    }

    /// The metadata of a block: its parent and its place.
    func metadata(_ index: Int) -> ObjectMetadata {
        ObjectMetadata(parent: index == 0 ? .none : names[index - 1].key, indexInChain: UInt32(index))
    }
}

/// Which file, in which namespace, cut how.
struct FileOptions: ParsableArguments {
    @Argument(help: "The namespace.") var namespace: String
    @Argument(help: "The file.") var file: String
    @Option(name: .long, parsing: .unconditional, help: ArgumentHelp("Bytes of a block.", valueName: "size"))
    var block = "2MiB"

    func chain() throws(OperatorError) -> (FileChain, Int) {
        let bytes = try ByteSize.read(block, name: "block", at: "--block")
        guard (1...(64 << 20)).contains(bytes) else {
            throw OperatorError("`block` is \(bytes) bytes, not from 1 to 64 MiB", at: "--block")
        }
        return (try FileChain(file: file, blockBytes: bytes), bytes)
    }
}

extension Ctl {
    struct Put: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Puts a file into a namespace, as a chain of blocks.")
        @OptionGroup var files: FileOptions
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let (chain, blockBytes) = try files.chain()
            let connection = try to.connect(payloadBytes: blockBytes)
            let handle = try await connection.namespace(files.namespace)
            var stored = 0
            for (index, block) in chain.blocks.enumerated() {
                let slice = MemorySlice(offset: 0, count: block.count)
                let target = unsafe connection.memory[slice]
                _ = unsafe block.withUnsafeBytes { unsafe target.copyMemory(from: $0) }
                let checksum = unsafe BlockChecksum.of(chain.names[index], UnsafeRawBufferPointer(target))
                let response = try await connection.ask(
                    .put(
                        handle, chain.names[index], chain.metadata(index), payloadBytes: block.count,
                        checksum: checksum), slot: slice, accepting: [.ok, .alreadyPresent])
                if response.status == .ok { stored += 1 }
            }
            if to.json {
                try print("{\"blocks\":\(chain.blocks.count),\"stored\":\(stored)}")
            } else {
                try print("\(chain.blocks.count) blocks, \(stored) stored, the others were there")
            }
        }
    }

    struct Get: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Gets one object into a file.")
        @Argument(help: "The namespace.") var namespace: String
        @Argument(help: "The key, 64 hexadecimal digits.") var key: String
        @Argument(help: "The file to write.") var file: String
        @OptionGroup var object: ObjectOptions
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let name = try object.name(key)
            let room = 64 << 20
            let connection = try to.connect(payloadBytes: room)
            let handle = try await connection.known(namespace)
            let response = try await connection.ask(
                .get(handle, name), slot: MemorySlice(offset: 0, count: room), accepting: [.ok, .absent])
            guard response.status == .ok else { throw object.absence(of: name, in: namespace, at: to.store) }
            guard case .object(let count, _, _) = response.body else { return }
            let bytes = unsafe Array(connection.memory[MemorySlice(offset: 0, count: count)])
            try NamedFile(file).write(bytes)
            try print(to.json ? "{\"payloadBytes\":\(count)}" : "\(count) bytes")
        }
    }

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Gets a file's blocks back and compares every byte.",
            discussion: "Exit code 1 when a block is missing; a wrong byte would be an error of its own.")
        @OptionGroup var files: FileOptions
        @OptionGroup var to: StoreConnectionOptions

        func run() async throws {
            let (chain, blockBytes) = try files.chain()
            let connection = try to.connect(payloadBytes: blockBytes)
            let handle = try await connection.known(files.namespace)
            var right = 0
            var missing = 0
            var wrong = 0
            for (index, block) in chain.blocks.enumerated() {
                let slice = MemorySlice(offset: 0, count: block.count)
                let response = try await connection.ask(
                    .get(handle, chain.names[index]), slot: slice, accepting: [.ok, .absent, .corrupt])
                guard response.status == .ok else {
                    missing += 1
                    continue
                }
                let bytes = unsafe connection.memory[slice]
                let isEqual = unsafe block.withUnsafeBytes { source in
                    unsafe source.elementsEqual(UnsafeRawBufferPointer(bytes))
                }
                if isEqual { right += 1 } else { wrong += 1 }
            }
            if to.json {
                try print("{\"missing\":\(missing),\"right\":\(right),\"wrong\":\(wrong)}")
            } else {
                try print("\(right) blocks right, \(missing) missing, \(wrong) wrong")
            }
            guard wrong == 0 else { throw OperatorError("\(wrong) blocks came with wrong bytes", at: to.store) }
            if missing > 0 { throw ExitCode(1) }
        }
    }
}
