// Sessions at once: so many in all, and no more of one tenant than leave some to the others.

/// Counts sessions, by tenant.
package struct SessionPlaces {
    private let most: Int
    private let mostOfATenant: Int
    private var count = 0
    private var counts: [String: Int] = [:]

    /// So many places, of which one tenant who is no operator has at most a share, and one at least.
    package init(_ most: Int, tenantShare: Double) {
        self.most = most
        mostOfATenant = max(1, Int(Double(most) * tenantShare))
    }

    /// Takes a place for a session. False: there is none, or none for this tenant.
    package mutating func take(for tenant: String, isOperator: Bool) -> Bool {
        let held = counts[tenant, default: 0]
        guard count < most, isOperator || held < mostOfATenant else { return false }
        count += 1
        counts[tenant] = held + 1
        return true
    }

    /// A session of this tenant has ended.
    package mutating func giveBack(of tenant: String) {
        guard let held = counts[tenant] else { preconditionFailure("a session ends that had no place") }
        count -= 1
        counts[tenant] = held > 1 ? held - 1 : nil
    }
}
