// How work crosses between threads: nothing is lost, doubled or overtaken, room is what was stated, and nobody sleeps
// while work waits.

import Foundation
import KVModel
import KVSystem
import Synchronization
import Testing

@Suite struct MailboxTests {
    @Test func messagesComeInTheOrderInWhichTheyWereLeft() throws {
        let mailbox = Mailbox<Int>(capacity: 8, waking: try WakeSignal())
        var batch: [Int] = []
        for turn in 0..<100 {
            for number in 0..<5 { #expect(mailbox.post(turn * 5 + number) == .accepted) }
            #expect(!mailbox.isEmpty)
            mailbox.drain(into: &batch)
            #expect(batch == Array(turn * 5..<turn * 5 + 5))
            #expect(mailbox.isEmpty)
        }
        mailbox.drain(into: &batch)
        #expect(batch.isEmpty)
    }

    @Test func aFullMailboxSaysSoAndTakesNothing() throws {
        let mailbox = Mailbox<Int>(capacity: 3, waking: try WakeSignal())
        var batch: [Int] = []
        // Again and again: emptying it must not change how much it holds.
        for _ in 0..<10 {
            for number in 0..<3 { #expect(mailbox.post(number) == .accepted) }
            #expect(mailbox.post(99) == .full)
            #expect(mailbox.post(99) == .full)
            mailbox.drain(into: &batch)
            #expect(batch == [0, 1, 2])
        }
    }

    @Test func aSignalIsReadableOnlyWhenItsOwnerWasAsleep() throws {
        let signal = try WakeSignal()
        signal.wake()
        #expect(!isReadable(signal, milliseconds: 0))
        signal.prepareToSleep()
        signal.wake()
        signal.wake()
        #expect(isReadable(signal, milliseconds: 0))
        signal.awake()
        #expect(!isReadable(signal, milliseconds: 0))
    }

    @Test func severalMailboxesOfOneOwnerShareItsSignal() throws {
        let signal = try WakeSignal()
        let numbers = Mailbox<Int>(capacity: 1, waking: signal)
        let words = Mailbox<String>(capacity: 1, waking: signal)
        signal.prepareToSleep()
        #expect(numbers.post(1) == .accepted)
        #expect(isReadable(signal, milliseconds: 0))
        signal.awake()
        signal.prepareToSleep()
        #expect(words.post("two") == .accepted)
        #expect(isReadable(signal, milliseconds: 0))
        signal.awake()
        // Nobody is woken for what was refused.
        signal.prepareToSleep()
        #expect(words.post("three") == .full)
        #expect(!isReadable(signal, milliseconds: 0))
    }

    /// Four threads post through a mailbox with little room while its owner sleeps whenever it is empty. A lost wake-up
    /// would leave the owner in `poll` until its deadline, which a run that is right never meets.
    @Test func noWakeUpIsLostAndNoMessage() throws {
        let producerCount = 4
        let messageCount = 20_000
        let signal = try WakeSignal()
        let mailbox = Mailbox<Message>(capacity: 64, waking: signal)
        let producers = try (0..<producerCount).map { producer in
            try EngineThread("producer \(producer)") {
                for number in 0..<messageCount {
                    while mailbox.post(Message(producer: producer, number: number)) == .full { sched_yield() }
                }
            }
        }
        var next = [Int](repeating: 0, count: producerCount)
        var batch: [Message] = []
        var batchSizeMax = 0
        var outOfOrder = 0
        var overslept = 0
        while next.reduce(0, +) < producerCount * messageCount {
            signal.prepareToSleep()
            // After a lost wake-up the loop goes on without sleeping, so that the producers end in any case.
            if mailbox.isEmpty, overslept == 0, !isReadable(signal, milliseconds: 20_000) { overslept += 1 }
            signal.awake()
            mailbox.drain(into: &batch)
            batchSizeMax = max(batchSizeMax, batch.count)
            for message in batch {
                if message.number != next[message.producer] { outOfOrder += 1 }
                next[message.producer] += 1
            }
        }
        for producer in producers { producer.join() }
        #expect(overslept == 0)
        #expect(outOfOrder == 0)
        #expect(batchSizeMax <= 64)
        #expect(mailbox.isEmpty)
    }

    @Test func aThreadRunsItsFunctionOnceUnderItsName() throws {
        let seen = SeenNames()
        let thread = try EngineThread("a name too long to keep") { seen.add(ownThreadName()) }
        thread.join()
        #expect(seen.names == ["a name too long"])
    }

    private struct Message {
        var producer: Int
        var number: Int
    }

    private func isReadable(_ signal: WakeSignal, milliseconds: Int32) -> Bool {
        var waiting = pollfd(fd: signal.descriptor, events: Int16(POLLIN), revents: 0)
        return unsafe poll(&waiting, 1, milliseconds) == 1
    }
}

/// Where a thread leaves its name for the test.
private final class SeenNames: Sendable {
    private let stored = Mutex<[String]>([])
    var names: [String] { stored.withLock { $0 } }
    func add(_ name: String) { stored.withLock { $0.append(name) } }
}

private func ownThreadName() -> String {
    let words = FileManager.default.contents(atPath: "/proc/thread-self/comm") ?? Data()
    return String(decoding: words, as: UTF8.self).trimmingCharacters(in: .newlines)
}
