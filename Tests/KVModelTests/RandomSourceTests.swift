// Seeded draws and the logarithms under them: the same bits on every machine.

import KVModel
import Testing

@Suite struct RandomSourceTests {
    @Test func sameSeedGivesTheSameDraws() {
        var first = RandomSource(seed: 7)
        var second = RandomSource(seed: 7)
        for _ in 0..<100 { #expect(first.next() == second.next()) }
    }

    @Test(arguments: [
        (1.0, 0.0), (2.718_281_828_459_045, 1.0), (1e-300, -690.775_527_898_213_7), (10, 2.302_585_092_994_046),
    ])
    func logarithmHasKnownValues(value: Double, logarithm: Double) {
        #expect(abs(naturalLogarithm(value) - logarithm) <= 4e-16 * max(1, abs(logarithm)))
    }

    @Test func exponentialUndoesTheLogarithm() {
        var random = RandomSource(seed: 1)
        for _ in 0..<1000 {
            let value = random.uniform() * 1e6 + 1e-9
            #expect(abs(exponential(naturalLogarithm(value)) / value - 1) < 1e-14)
        }
    }

    @Test func exponentialDrawsHaveTheirMean() {
        var random = RandomSource(seed: 3)
        var sum = 0.0
        for _ in 0..<100_000 { sum += random.exponential(mean: 2) }
        #expect(abs(sum / 100_000 - 2) < 0.03)
    }
}
