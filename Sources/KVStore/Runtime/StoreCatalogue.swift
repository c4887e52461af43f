// Namespaces and pins in SQLite. Its own thread: a commit waits for the disk, and the store's thread never does. The
// drives are the truth about blocks; the catalogue knows none.

import Foundation
import GRDB
import KVModel
import KVSystem
import Synchronization

/// The durable part of a store that is not blocks.
public final class StoreCatalogue: Sendable {
    /// What it held when it was opened.
    public struct Contents: Sendable {
        /// Names and settings.
        public var namespaces: [(name: String, policy: NamespacePolicy)]
        /// All pins, those whose block is gone included.
        public var pins: [PinRecord]
    }

    private struct Order: Sendable {
        var ticket: UInt64
        var change: CatalogueChange
    }

    private let database: DatabaseQueue
    private let orders: Mailbox<Order>
    private let signal: WakeSignal
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<EngineThread?>(nil)

    /// Opens or makes the file; its folder must be there.
    public init(path: String, ordersMax: Int) throws(OperatorError) {
        var configuration = Configuration()
        configuration.prepareDatabase { database in
            // A commit is acknowledged only when it survives a power cut.
            try database.execute(sql: "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        }
        do {
            database = try DatabaseQueue(path: path, configuration: configuration)
            try Self.migrate(database)
            signal = try WakeSignal()
        } catch {
            throw OperatorError(
                "the catalogue cannot be opened: \(error)", at: path, remedy: "name another with --catalogue")
        }
        orders = Mailbox(capacity: ordersMax, waking: signal)
    }

    private static func migrate(_ database: DatabaseQueue) throws {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE namespaces (name TEXT PRIMARY KEY NOT NULL, policy TEXT NOT NULL) WITHOUT ROWID;
                    CREATE TABLE pins (
                        namespace TEXT NOT NULL, key TEXT NOT NULL, layerGroup INTEGER NOT NULL, shard INTEGER NOT NULL,
                        shardCount INTEGER NOT NULL, owner TEXT NOT NULL, expires INTEGER NOT NULL,
                        PRIMARY KEY (namespace, key, layerGroup, shard, shardCount, owner)
                    ) WITHOUT ROWID
                    """)
        }
        try migrator.migrate(database)
    }

    /// What is in it.
    public func contents() throws(OperatorError) -> Contents {
        do {
            return try database.read { database in
                let decoder = JSONDecoder()
                let namespaces = try Row.fetchAll(database, sql: "SELECT name, policy FROM namespaces ORDER BY name")
                    .map { row in
                        let policy = try decoder.decode(
                            NamespacePolicy.self, from: Data(try row.value("policy", as: String.self).utf8))
                        return (name: try row.value("name", as: String.self), policy: policy)
                    }
                let pins = try Row.fetchAll(database, sql: "SELECT * FROM pins").map { row in
                    PinRecord(
                        namespace: try row.value("namespace"), key: try row.value("key"),
                        group: try row.value("layerGroup"), shard: try row.value("shard"),
                        shardCount: try row.value("shardCount"), owner: try row.value("owner"),
                        expires: try row.value("expires"))
                }
                return Contents(namespaces: namespaces, pins: pins)
            }
        } catch { throw OperatorError("the catalogue cannot be read: \(error)", at: database.path) }
    }

    /// Starts taking orders. `sink` hears of each whether it is durable, on the catalogue's thread.
    public func start(sink: @escaping @Sendable (_ ticket: UInt64, _ succeeded: Bool) -> Void) throws(SystemError) {
        let started = try EngineThread("hf-catalogue") { [self] in work(sink) }
        thread.withLock { $0 = started }
    }

    /// Hands an order over.
    public func post(ticket: UInt64, _ change: CatalogueChange) -> Acceptance {
        orders.post(Order(ticket: ticket, change: change))
    }

    /// Ends after what was ordered.
    public func shutDown() {
        isStopping.store(true, ordering: .sequentiallyConsistent)
        signal.wake()
        thread.withLock { $0.take() }?.join()
        try? database.close()
    }

    private func work(_ sink: (UInt64, Bool) -> Void) {
        var batch: [Order] = []
        while true {
            orders.drain(into: &batch)
            guard !batch.isEmpty else {
                if isStopping.load(ordering: .sequentiallyConsistent) { return }
                signal.prepareToSleep()
                if orders.isEmpty, !isStopping.load(ordering: .sequentiallyConsistent) { signal.wait(atMost: nil) }
                signal.awake()
                continue
            }
            // One commit for all that came meanwhile; if it fails, each is tried alone, so that one bad order fails alone.
            let together = batch
            if (try? database.write { try apply(together, $0) }) != nil {
                for order in together { sink(order.ticket, true) }
            } else {
                for order in together { sink(order.ticket, (try? database.write { try apply([order], $0) }) != nil) }
            }
        }
    }

    private func apply(_ orders: [Order], _ database: Database) throws {
        for order in orders {
            switch order.change {
            case .setNamespace(let name, let policy):
                let text = String(decoding: try JSONEncoder().encode(policy), as: UTF8.self)
                try database.execute(
                    sql: "INSERT OR REPLACE INTO namespaces VALUES (?, ?)", arguments: [name, text])
            case .removeNamespace(let name):
                try database.execute(sql: "DELETE FROM namespaces WHERE name = ?", arguments: [name])
                try database.execute(sql: "DELETE FROM pins WHERE namespace = ?", arguments: [name])
            case .addPins(let pins):
                for pin in pins {
                    try database.execute(
                        sql: "INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?, ?, ?, ?)",
                        arguments: [
                            pin.namespace, pin.key, pin.group, pin.shard, pin.shardCount, pin.owner, pin.expires,
                        ])
                }
            case .removePins(let pins):
                for pin in pins {
                    try database.execute(
                        sql: """
                            DELETE FROM pins WHERE namespace = ? AND key = ? AND layerGroup = ? AND shard = ?
                            AND shardCount = ? AND owner = ?
                            """,
                        arguments: [pin.namespace, pin.key, pin.group, pin.shard, pin.shardCount, pin.owner])
                }
            }
        }
    }
}

extension Row {
    /// A column's value. SQLite keeps no checksums: a number may be out of its range, a text no text, and taking it by its type
    /// alone would end the process.
    fileprivate func value<Value: DatabaseValueConvertible>(
        _ column: String, as: Value.Type = Value.self
    ) throws -> Value {
        let kept: DatabaseValue = self[column]
        guard let value = Value.fromDatabaseValue(kept) else { throw DamagedCatalogue(column: column, kept: kept) }
        return value
    }
}

/// A column holds what nobody wrote there.
private struct DamagedCatalogue: Error, CustomStringConvertible {
    let column: String
    let kept: DatabaseValue

    var description: String { "`\(column)` holds \(kept)" }
}
