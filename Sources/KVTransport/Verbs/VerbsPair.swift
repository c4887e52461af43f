// One reliable queue pair: its life from INIT to its end, and posting in batches. What is posted and why: `VerbsChannel`.

import CVerbs
import KVModel
import KVSystem

/// A queue pair, which holds what it was made of.
@safe
package final class VerbsPair {
    private let handle: OpaquePointer
    private let domain: VerbsDomain
    private let completions: VerbsCompletions
    private let regions: [VerbsRegion]
    /// Its number on this port.
    package let number: UInt32
    /// Messages as long as this can be posted inline.
    package let inlineBytesMax: Int

    /// Makes a pair that can receive once receives are posted, and cannot send.
    ///
    /// - Parameters:
    ///   - peerAccess: What the peer may do with registered regions that allow it: nothing, for a store.
    ///   - regions: What work requests of it, or of its peer, name: they are released after the pair.
    package init(
        _ domain: VerbsDomain, _ completions: VerbsCompletions, sendDepth: Int, receiveCount: Int,
        peerAccess: VerbsAccess, keeping regions: [VerbsRegion]
    ) throws(SystemError) {
        var settings = hf_rdma_pair_settings(
            send_depth: UInt32(sendDepth), receive_depth: UInt32(receiveCount), inline_bytes: 192,
            peer_access: peerAccess.rawValue)
        var handle: OpaquePointer?
        _ = try checked(
            unsafe hf_rdma_pair_create(domain.handle, completions.handle, &settings, &handle), "make a queue pair")
        unsafe self.handle = unsafe handle!
        self.domain = domain
        self.completions = completions
        self.regions = regions
        number = unsafe hf_rdma_pair_number(handle!)
        inlineBytesMax = Int(settings.inline_bytes)
        VerbsAccount.add(1, to: VerbsAccount.pairs)
    }

    deinit {
        if unsafe hf_rdma_pair_destroy(handle) == 0 { VerbsAccount.add(-1, to: VerbsAccount.pairs) }
    }

    /// Connects it to its peer: from here on both ways are open.
    package func connect(
        to peer: VerbsParameters, from own: VerbsParameters, readsAsInitiator: Int, settings: VerbsSettings
    ) throws(SystemError) {
        var to = hf_rdma_connection()
        to.peer_pair = peer.pair
        to.peer_packet_number = peer.packetNumber
        to.own_packet_number = own.packetNumber
        unsafe withUnsafeMutableBytes(of: &to.peer_address) { unsafe $0.copyBytes(from: peer.address) }
        to.peer_local_identifier = peer.localIdentifier
        to.mtu_bytes = min(own.mtuBytes, peer.mtuBytes)
        to.reads_as_initiator = UInt32(readsAsInitiator)
        to.reads_as_responder = UInt32(min(own.readsAsResponder, peer.readsAsInitiator))
        to.timeout = UInt32(settings.timeout)
        to.retry_count = UInt32(settings.retryCount)
        // A receive is always posted. If one is not, somebody counts wrong, and waiting would only hide it.
        to.not_ready_retry_count = 0
        to.hop_limit = UInt32(settings.hopLimit)
        to.traffic_class = UInt32(settings.trafficClass)
        _ = try checked(unsafe hf_rdma_pair_connect(handle, &to), "connect a queue pair")
    }

    /// Leaves RTS: nothing of the peer is accepted any more, and all that is posted completes as flushed.
    package func fail() { _ = unsafe hf_rdma_pair_fail(handle) }

    /// Posts all of these with one doorbell.
    func post(_ sends: borrowing [hf_rdma_send]) throws(SystemError) {
        var posted: Int32 = 0
        let result = unsafe sends.withUnsafeBufferPointer {
            unsafe hf_rdma_post_sends(handle, $0.baseAddress, Int32($0.count), &posted)
        }
        _ = try checked(result, "post \(sends.count) sends")
    }

    /// Posts all of these with one doorbell.
    func post(_ receives: borrowing [hf_rdma_receive]) throws(SystemError) {
        var posted: Int32 = 0
        let result = unsafe receives.withUnsafeBufferPointer {
            unsafe hf_rdma_post_receives(handle, $0.baseAddress, Int32($0.count), &posted)
        }
        _ = try checked(result, "post \(receives.count) receives")
    }

    /// The most work requests of one doorbell.
    package static let batchMax = 32
}
