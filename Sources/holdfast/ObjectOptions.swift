// How `ctl` names one object of a block: an engine with several groups of layers, or several shards, keeps as many of each.

import ArgumentParser
import KVModel
import KVStore

/// Which part of a block is meant, as `ctl ls` prints it behind the key.
struct ObjectOptions: ParsableArguments {
    @Option(name: .long, parsing: .unconditional, help: ArgumentHelp("The group of layers.", valueName: "number"))
    var group: UInt16 = 0

    @Option(name: .long, help: ArgumentHelp("The shard, as 0/1.", valueName: "i/n"))
    var shard = "0/1"

    /// The shard, and of how many.
    func part() throws(OperatorError) -> (shard: UInt16, count: UInt16) {
        let parts = shard.split(separator: "/", omittingEmptySubsequences: false).map { UInt16($0) }
        guard parts.count == 2, let place = parts[0], let count = parts[1], place < count else {
            throw OperatorError("`\(shard)` is no shard like 0/1", at: "--shard")
        }
        return (place, count)
    }

    /// The object of a key of 64 hexadecimal digits.
    func name(_ key: String) throws(OperatorError) -> ObjectName {
        let part = try part()
        return ObjectName(try readKey(key), group: group, shard: part.shard, shardCount: part.count)
    }

    /// That a store has no such object.
    func absence(of name: ObjectName, in namespace: String, at store: String) -> OperatorError {
        OperatorError(
            "no object \(name.key.text), group \(name.group), shard \(name.shard)/\(name.shardCount), in `\(namespace)`",
            at: store, remedy: "`ctl ls` prints keys, groups and shards")
    }
}
