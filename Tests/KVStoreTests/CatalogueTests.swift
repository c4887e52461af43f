// The catalogue: what was durable comes back, and a damaged file is a sentence at the start and not its end.

import Foundation
import GRDB
import KVModel
import KVStore
import Synchronization
import Testing

@Suite struct CatalogueTests {
    private static let pin = PinRecord(
        namespace: "n", key: String(repeating: "a", count: 64), group: 1, shard: 2, shardCount: 3, owner: "o",
        expires: 9)

    /// A catalogue's file with one namespace and one pin.
    private func make() throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("hf-\(UUID().uuidString).catalogue")
            .path
        let catalogue = try StoreCatalogue(path: path, ordersMax: 4)
        let durable = Mutex<[UInt64]>([])
        try catalogue.start { ticket, succeeded in if succeeded { durable.withLock { $0.append(ticket) } } }
        #expect(catalogue.post(ticket: 1, .setNamespace(name: "n", NamespacePolicy())) == .accepted)
        #expect(catalogue.post(ticket: 2, .addPins([Self.pin])) == .accepted)
        catalogue.shutDown()
        #expect(durable.withLock { $0 } == [1, 2])
        return path
    }

    private func remove(_ path: String) {
        for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + suffix) }
    }

    @Test func whatWasDurableComesBack() throws {
        let path = try make()
        defer { remove(path) }
        let contents = try StoreCatalogue(path: path, ordersMax: 1).contents()
        #expect(contents.namespaces.map(\.name) == ["n"])
        #expect(contents.namespaces.map(\.policy) == [NamespacePolicy()])
        #expect(contents.pins == [Self.pin])
    }

    @Test(arguments: [
        "UPDATE pins SET layerGroup = 65536", "UPDATE pins SET shard = -1", "UPDATE pins SET shardCount = 'three'",
        "UPDATE pins SET owner = X'FF'", "UPDATE pins SET expires = 'never'", "UPDATE namespaces SET policy = X'FE'",
        "UPDATE namespaces SET policy = '{}'",
    ])
    func aDamagedColumnIsNamed(damage: String) throws {
        let path = try make()
        defer { remove(path) }
        let database = try DatabaseQueue(path: path)
        try database.write { try $0.execute(sql: damage) }
        try database.close()
        let catalogue = try StoreCatalogue(path: path, ordersMax: 1)
        let error = #expect(throws: OperatorError.self) { _ = try catalogue.contents() }
        #expect(error?.place == path)
        #expect(error?.what.hasPrefix("the catalogue cannot be read: ") == true)
    }
}
