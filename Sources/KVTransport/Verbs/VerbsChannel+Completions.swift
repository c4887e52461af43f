// What comes back to a channel: ends of posted work, and messages with frames in them.

import CVerbs
import KVModel
import KVSystem

extension VerbsChannel {
    /// Takes one completion of this pair. `flush` follows when a batch of them is through.
    package func complete(_ end: VerbsCompletion) {
        let completion = end.raw
        if completion.id & Self.receiveMark != 0 {
            receivesPosted -= 1
            counters.receiveCompletions += 1
            guard completion.status == 0 else { return fail(completion) }
            if failure == nil { takeMessage(Int(completion.id & ~Self.receiveMark), completion) }
        } else {
            counters.sendCompletions += 1
            // Work completes in order, so an end stands for all unsignaled work before it.
            while workStart < completion.id, !work.isEmpty { retire() }
            if completion.status != 0 { fail(completion) }
            if workStart == completion.id, !work.isEmpty { retire() }
        }
    }

    /// A work request failed, and with it the pair. The flushed ones that follow say nothing new.
    private func fail(_ completion: hf_rdma_completion) {
        guard failure == nil else { return }
        counters.pairsFailed += 1
        fail("RDMA: \(unsafe String(cString: hf_rdma_status_text(completion.status)))")
    }

    private func retire() {
        guard let done = work.removeFirst() else { return }
        workStart += 1
        switch done {
        case .write: break
        case .message(let message, let pushed):
            freeMessages.append(message)
            if let pushed, failure == nil { user.pushed(pushed) }
        case .read(let number, let isLast):
            readsOutstanding -= 1
            if isLast, failure == nil { user.pulled(number) }
        }
    }

    private func takeMessage(_ index: Int, _ completion: hf_rdma_completion) {
        guard completion.has_immediate != 0, credits.receive(Int(completion.immediate)) else {
            return fail("the peer grants more credits than it has")
        }
        let message = unsafe UnsafeRawBufferPointer(rebasing: messages[index][0..<Int(completion.bytes)])
        if partial.isEmpty {
            // The common case: whole frames, parsed where the adapter put them.
            let taken = unsafe takeFrames(message)
            if taken < message.count { unsafe keep(UnsafeRawBufferPointer(rebasing: message[taken...])) }
        } else {
            unsafe keep(message)
            takePartial()
        }
        if failure == nil { receivesToPost.append(receive(index)) }
    }

    private func keep(_ bytes: UnsafeRawBufferPointer) {
        unsafe partial.append(contentsOf: bytes)
        counters.frameBytesCopied += UInt64(bytes.count)
    }

    /// Goes on with frames that were kept because the user did not take them. Meanwhile no receive was posted again, so
    /// what is kept is bounded by the credits.
    package func resume() {
        guard failure == nil, !partial.isEmpty, user.takesFrames else { return }
        takePartial()
    }

    private func takePartial() {
        let kept = partial
        partial = []
        let taken = unsafe kept.withUnsafeBytes { unsafe takeFrames($0) }
        // A frame of many messages is moved on as it is, or it would be copied once a message.
        if failure == nil { partial = taken == 0 ? kept : Array(kept[taken...]) }
    }

    /// Hands over the whole frames that the user takes; returns the bytes they took.
    private func takeFrames(_ bytes: UnsafeRawBufferPointer) -> Int {
        var taken = 0
        do throws(FrameError) {
            while failure == nil, user.takesFrames, bytes.count - taken >= WireLimit.headerBytes {
                let bodyStart = taken + WireLimit.headerBytes
                let header = try unsafe FrameHeader(
                    reading: UnsafeRawBufferPointer(rebasing: bytes[taken..<bodyStart]))
                guard header.inlinePayloadBytes == 0 else {
                    throw FrameError(.outOfPlace("an inline payload"), at: 24)
                }
                let end = bodyStart + Int(header.bodyBytes)
                guard end <= bytes.count else { break }
                let body = unsafe UnsafeRawBufferPointer(rebasing: bytes[bodyStart..<end])
                try unsafe header.verify(body)
                unsafe try user.take(header, body)
                taken = end
            }
        } catch {
            fail("\(error)")
        }
        return taken
    }
}
