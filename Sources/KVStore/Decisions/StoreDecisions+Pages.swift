// Lists that have no end, as pages: of namespaces and of pins. A page is shorter than a body of the wire, whatever it holds.

import KVModel
import KVTransport

extension StoreDecisions {
    /// Records looked at for a page in one turn.
    static var recordsAListing: Int { 1 << 18 }
    /// Entries of a page: they are made into JSON between two requests.
    private static var entriesAPage: Int { 256 }
    /// Bytes of JSON after which no further entry is begun. The longest, a namespace with all the tenants that fit into an
    /// order or the pins of one block, still fits behind them.
    private static var bytesAPage: Int { 300_000 }

    // MARK: Namespaces

    /// Namespaces from a cursor on, which is a number, and the cursor of the next page.
    func namespacePage(
        from cursor: Int, where isShown: (StoreNamespace) -> Bool
    ) -> (page: [StoreStatus.Namespace], next: Int) {
        var page: [StoreStatus.Namespace] = []
        var bytes = 0
        for state in namespaces.dropFirst(max(0, cursor)) where !state.isDeleted && isShown(state) {
            guard page.count < Self.entriesAPage, bytes < Self.bytesAPage else { return (page, Int(state.number)) }
            page.append(state.status)
            // A byte of a name is six of JSON at most: `\u0001`.
            bytes += 400 + 6 * state.name.utf8.count + state.policy.tenants.reduce(0) { $0 + 6 * $1.utf8.count + 3 }
        }
        return (page, 0)
    }

    /// The namespaces that list the asker, for operators all; one of them when it is named.
    mutating func listNamespaces(_ request: RequestID, _ peer: Peer, _ order: OrderArguments) {
        let isOperator = operators.contains(peer.tenant)
        let page = namespacePage(from: order.cursor ?? 0) {
            (isOperator || $0.policy.tenants.contains(peer.tenant))
                && (order.namespace == nil || order.namespace == $0.name)
        }
        var result = OrderResult()
        result.namespaces = page.page
        result.next = page.next
        answer(request, result)
    }

    // MARK: Pins

    /// Pins in the order of their objects' numbers, then those whose object is not there in the order of a hash. The
    /// cursor is the number, or that hash behind the last number.
    mutating func listPins(_ request: RequestID, _ order: OrderArguments) {
        var page: [PinStatus] = []
        var bytes = 0
        var place = max(0, order.cursor ?? 0)
        // A cursor is the asker's word: it may stand anywhere behind the last.
        let end = place + min(Self.recordsAListing, max(0, objects.extentCount - place))
        while place < end, page.count < Self.entriesAPage, bytes < Self.bytesAPage {
            if let held = pins[UInt32(place)] {
                let namespace = scopes[objects[UInt32(place)].scope].namespace
                add(held, namespace, isDangling: false, to: &page, &bytes)
            }
            place += 1
        }
        if place >= objects.extentCount { place = danglingPage(from: place, &page, &bytes) }
        var result = OrderResult()
        result.pins = page.sorted {
            ($0.namespace, $0.key, $0.shard, $0.owner) < ($1.namespace, $1.key, $1.shard, $1.owner)
        }
        result.next = place
        answer(request, result)
    }

    /// - Returns: The next cursor; 0 when these were all.
    private func danglingPage(from cursor: Int, _ page: inout [PinStatus], _ bytes: inout Int) -> Int {
        var left: [(place: Int, name: PinnedName)] = []
        for name in danglingPins.keys {
            let place = objects.extentCount + Int(truncatingIfNeeded: name.order)
            if place >= cursor { left.append((place, name)) }
        }
        left.sort { $0.place < $1.place }
        var last = -1
        for (place, name) in left {
            // Those of one place are on one page.
            guard place == last || (page.count < Self.entriesAPage && bytes < Self.bytesAPage) else { return place }
            add(danglingPins[name] ?? [], name.namespace, isDangling: true, to: &page, &bytes)
            last = place
        }
        return 0
    }

    private func add(
        _ held: [StorePin], _ namespace: UInt16, isDangling: Bool, to page: inout [PinStatus], _ bytes: inout Int
    ) {
        let name = namespaces[Int(namespace)].name
        for pin in held {
            page.append(PinStatus(name, pin, isDangling: isDangling))
            bytes += 300 + 6 * (name.utf8.count + pin.owner.utf8.count)
        }
    }
}

extension PinnedName {
    /// 32 bits that say where a name stands among others.
    fileprivate var order: UInt32 {
        let shard = UInt64(name.shard) << 16 | UInt64(name.shardCount)
        let parts = UInt64(namespace) << 48 | UInt64(name.group) << 32 | shard
        return UInt32(truncatingIfNeeded: mixBits(mixBits(name.key[0] ^ name.key[1]) ^ parts))
    }
}
