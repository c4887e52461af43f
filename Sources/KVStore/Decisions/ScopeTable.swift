// Which scopes there are. Objects remember the number of theirs, four bytes in place of eight, and names are compared by it.

/// Scopes by number, and numbers by scope.
///
/// A scope has a number while an object has the scope, and no longer. Peers choose groups and shards, so there is only room
/// for so many, shared by the namespaces.
struct ScopeTable {
    /// Numbers at once: what peers may make the store remember. A namespace's share is 128, 16 groups of 8 shards.
    static let countMax = 1 << 20

    private var scopes: [ObjectScope] = []
    /// Objects that have the scope of this number.
    private var uses: [UInt32] = []
    private var numbers: [ObjectScope: UInt32] = [:]
    private var unused: [UInt32] = []
    private var room = SharedRoom(places: Self.countMax, namespaces: StoreDecisions.namespacesMax)

    /// The scope with a number.
    subscript(number: UInt32) -> ObjectScope {
        @inline(__always) get { scopes[Int(number)] }
    }

    /// The number of a scope, or nil: then no object has it.
    @inline(__always)
    func number(of scope: ObjectScope) -> UInt32? { numbers[scope] }

    /// Whether a new object may have this scope.
    func hasRoom(for scope: ObjectScope) -> Bool {
        numbers[scope] != nil || room.hasPlace(for: scope.namespace)
    }

    /// Whether an object that a drive holds may have this scope.
    func hasRoom(forRecovered scope: ObjectScope) -> Bool { numbers[scope] != nil || numbers.count < Self.countMax }

    /// One object more has the scope.
    ///
    /// - Returns: Its number.
    mutating func retain(_ scope: ObjectScope) -> UInt32 {
        if let known = numbers[scope] {
            uses[Int(known)] += 1
            return known
        }
        let number: UInt32
        if let left = unused.popLast() {
            number = left
            scopes[Int(number)] = scope
            uses[Int(number)] = 1
        } else {
            number = UInt32(scopes.count)
            scopes.append(scope)
            uses.append(1)
        }
        numbers[scope] = number
        room.take(for: scope.namespace)
        return number
    }

    /// One object less has the scope of this number.
    mutating func release(_ number: UInt32) {
        precondition(uses[Int(number)] > 0, "a scope is given back that nobody has")
        uses[Int(number)] -= 1
        guard uses[Int(number)] == 0 else { return }
        let scope = scopes[Int(number)]
        numbers[scope] = nil
        unused.append(number)
        room.giveBack(of: scope.namespace)
    }

    /// The first broken rule in words, or nil. `wanted`: how many objects have the scope of each number.
    func audit(_ wanted: [UInt32: UInt32]) -> String? {
        for number in uses.indices where uses[number] != wanted[UInt32(number)] ?? 0 {
            return "scope \(number) counts \(uses[number]) objects"
        }
        if numbers.count != wanted.count { return "\(numbers.count) scopes have numbers, \(wanted.count) have objects" }
        return nil
    }
}
