// Places that all namespaces share, given out so that one of them cannot take those of the others.

/// Counts places in use, by namespace.
///
/// Half of all places are shares: each namespace may always have its own. The other half is for whoever comes first.
struct SharedRoom {
    /// Places that a namespace may have whatever the others have.
    let share: Int
    /// Places that are in nobody's share.
    private let beyondMax: Int
    /// Places in use, by namespace.
    private var counts: [Int] = []
    /// Of these, those that exceed the shares.
    private var beyond = 0
    /// Places in use.
    private(set) var count = 0

    /// Room for so many, among so many namespaces.
    init(places: Int, namespaces: Int) {
        share = places / 2 / namespaces
        beyondMax = places - share * namespaces
    }

    /// Whether there is a place for one more of this namespace.
    func hasPlace(for namespace: UInt16) -> Bool {
        beyond < beyondMax || (Int(namespace) < counts.count ? counts[Int(namespace)] : 0) < share
    }

    /// One place more is in use: given out, or found in use at a start, when nothing is refused.
    mutating func take(for namespace: UInt16) {
        let namespace = Int(namespace)
        if namespace >= counts.count { counts += Array(repeating: 0, count: namespace + 1 - counts.count) }
        counts[namespace] += 1
        if counts[namespace] > share { beyond += 1 }
        count += 1
    }

    /// So many places less are in use.
    mutating func giveBack(_ places: Int = 1, of namespace: UInt16) {
        let namespace = Int(namespace)
        precondition(namespace < counts.count && counts[namespace] >= places, "places are given back that nobody has")
        beyond -= min(places, max(0, counts[namespace] - share))
        counts[namespace] -= places
        count -= places
    }
}
