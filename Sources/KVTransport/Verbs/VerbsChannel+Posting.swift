// What a channel posts: WRITEs, READs and messages in batches of one doorbell, within the limits of both ends.

import CVerbs
import KVModel
import KVSystem

extension VerbsChannel {
    /// Marks the id of a receive; the rest of it is the number of its buffer.
    static let receiveMark: UInt64 = 1 << 63

    /// Posts what may be posted now.
    package func flush() {
        guard failure == nil, isConnected else { return }
        do throws(SystemError) {
            // Receives go back in quarters: one doorbell for many, and the peer never runs dry meanwhile.
            if receivesToPost.count >= max(1, settings.receiveCount / 4), user.takesFrames { try postReceives() }
            while true {
                gatherReads()
                gatherOrders()
                reportCredits()
                guard !batch.isEmpty else { return }
                let mayHaveMore = batch.count == VerbsPair.batchMax
                try pair.post(batch)
                counters.sendDoorbells += 1
                batch.removeAll(keepingCapacity: true)
                guard mayHaveMore else { return }
            }
        } catch {
            fail("\(error)")
        }
    }

    func receive(_ index: Int) -> hf_rdma_receive {
        hf_rdma_receive(
            id: Self.receiveMark | UInt64(index), local_address: messages.address(index),
            local_key: messages.region.localKey, bytes: UInt32(settings.receiveBytes))
    }

    func postReceives() throws(SystemError) {
        while !receivesToPost.isEmpty {
            let count = min(receivesToPost.count, VerbsPair.batchMax)
            try pair.post(Array(receivesToPost.suffix(count)))
            receivesToPost.removeLast(count)
            receivesPosted += count
            counters.receiveDoorbells += 1
            if isConnected { for _ in 0..<count { credits.repost() } }
        }
    }

    /// Work that is gathered is counted in `work` at once, so this is what the queue has left.
    private var roomForWork: Int { settings.sendDepth - work.count }

    /// READs beside the orders: one that waits for its turn at the peer must hold up no reply.
    private func gatherReads() {
        while readsOutstanding < readsOutstandingMax, batch.count < VerbsPair.batchMax, roomForWork > 0,
            let pull = pulls.first
        {
            let count = min(pull.buffer.count - pullProgress, payloadMessageBytesMax)
            let isLast = pullProgress + count == pull.buffer.count
            post(
                .read(number: pull.number, isLast: isLast), operation: 2, pull.buffer, pull.slot, at: pullProgress,
                count: count, isSignaled: true)
            readsOutstanding += 1
            counters.reads += 1
            pullProgress += count
            guard isLast else { continue }
            _ = pulls.removeFirst()
            pullProgress = 0
        }
        counters.readsOutstandingMax = max(counters.readsOutstandingMax, UInt64(readsOutstanding))
    }

    private func gatherOrders() {
        while batch.count < VerbsPair.batchMax, roomForWork > 0, let order = orders.first {
            switch order {
            case .write(let buffer, let slot):
                let count = min(buffer.count - orderProgress, payloadMessageBytesMax)
                // The reply's completion stands for the WRITEs before it. Only a run as long as half the queue asks
                // for one of its own, or the queue would fill up with work that never completes visibly.
                let isSignaled = unsignaled + 1 >= settings.sendDepth / 2
                post(.write, operation: 1, buffer, slot, at: orderProgress, count: count, isSignaled: isSignaled)
                counters.writes += 1
                advance(by: count, of: buffer.count)
            case .frames(let byteCount, let pushed):
                guard credits.maySend, let message = freeMessages.popLast() else { return }
                let count = min(byteCount - orderProgress, messageBytesOut)
                let isLast = orderProgress + count == byteCount
                unsafe outgoing.bytes.withUnsafeBytes {
                    unsafe messages[message].copyMemory(
                        from: UnsafeRawBufferPointer(rebasing: $0[outgoingStart..<(outgoingStart + count)]))
                }
                outgoingStart += count
                postMessage(message, count: count, pushed: isLast ? pushed : nil)
                advance(by: count, of: byteCount)
            }
        }
        compactOutgoing()
    }

    /// Gives back the room of frames that were posted.
    private func compactOutgoing() {
        if outgoingStart == outgoing.bytes.count {
            outgoing.removeAll()
            outgoingStart = 0
        } else if outgoingStart > 1 << 20 {
            outgoing.removeFirst(outgoingStart)
            outgoingStart = 0
        }
    }

    private func advance(by count: Int, of total: Int) {
        orderProgress += count
        guard orderProgress == total else { return }
        _ = orders.removeFirst()
        orderProgress = 0
    }

    /// Sends a message that carries credits and nothing else, when much is owed and nothing can carry it.
    private func reportCredits() {
        guard credits.mustReport(whileWaiting: !orders.isEmpty), batch.count < VerbsPair.batchMax, roomForWork > 0,
            let message = freeMessages.popLast()
        else { return }
        postMessage(message, count: 0, pushed: nil)
    }

    private func post(
        _ kind: Work, operation: UInt8, _ buffer: VerbsBuffer, _ slot: RemoteSlot, at offset: Int, count: Int,
        isSignaled: Bool
    ) {
        batch.append(
            hf_rdma_send(
                id: workStart + UInt64(work.count), local_address: buffer.address + UInt64(offset),
                peer_address: slot.address + UInt64(offset), peer_key: slot.key, local_key: buffer.key,
                bytes: UInt32(count), immediate: 0, operation: operation, is_signaled: isSignaled ? 1 : 0,
                is_inline: 0, reserved: 0))
        work.append(kind)
        unsignaled = isSignaled ? 0 : unsignaled + 1
        counters.payloadBytes += UInt64(count)
    }

    private func postMessage(_ message: Int, count: Int, pushed: UInt32?) {
        batch.append(
            hf_rdma_send(
                id: workStart + UInt64(work.count), local_address: messages.address(message), peer_address: 0,
                peer_key: 0, local_key: messages.region.localKey, bytes: UInt32(count),
                immediate: UInt32(credits.take()), operation: 3, is_signaled: 1,
                is_inline: count <= pair.inlineBytesMax ? 1 : 0, reserved: 0))
        work.append(.message(buffer: message, pushed: pushed))
        unsignaled = 0
        counters.sends += 1
        counters.frameBytesCopied += UInt64(count)
    }
}
