// A store's host by name: whatever the resolver does, nobody waits for it.

import Foundation
import KVModel
import KVSystem
import KVTransport
import Synchronization
import Testing

@Suite struct StoreHostTests {
    @Test func aResolverThatHangsHoldsUpNobody() async throws {
        let count = SharedCount()
        let answers = DispatchSemaphore(value: 0)
        let host = StoreHost("store") { _ in
            // The first answer comes at once, all others when the test says so.
            if count.next() == 1 { return .address("10.0.0.1") }
            answers.wait()
            return .address("10.0.0.2")
        }
        for _ in 0..<100 { #expect(try host.address() == "10.0.0.1") }
        #expect(await eventually { count.value == 2 })
        answers.signal()
        #expect(await eventually { (try? host.address()) == "10.0.0.2" })
        for _ in 0..<2 { answers.signal() }
    }

    @Test func anAddressIsNotLookedUp() throws {
        for text in ["127.0.0.1", "::1"] {
            let host = StoreHost(text) { _ in
                Issue.record("an address was looked up")
                return .none("")
            }
            #expect(try host.address() == text)
        }
    }

    @Test func aHostThatNobodyKnowsIsAnErrorUntilItIsKnown() async throws {
        let count = SharedCount()
        let host = StoreHost("store") { _ in
            let number = count.next()
            return number < 3 ? .none("no answer \(number)") : .address("10.0.0.3")
        }
        let error = #expect(throws: SystemError.self) { try host.address() }
        // On a busy machine the second answer may have come by then.
        #expect(error?.description.hasPrefix("no answer ") == true)
        // Where all threads of the pool are busy a pause may outlast any time: so it is asked a hundred times, however long that takes.
        var known: String?
        for _ in 0..<100 where known == nil {
            try await Task.sleep(for: .milliseconds(20))
            known = try? host.address()
        }
        #expect(known == "10.0.0.3")
    }

    @Test func aNameThatNoResolverTakesIsNamed() {
        // A label ends at 63 bytes: no resolver asks anybody.
        let name = String(repeating: "a", count: 64)
        let error = #expect(throws: SystemError.self) { try StoreHost(name).address() }
        #expect(error?.description.contains("host \(name)") == true, "\(error?.description ?? "")")
        #expect(error?.description.contains("Cannot assign") == false)
    }
}
