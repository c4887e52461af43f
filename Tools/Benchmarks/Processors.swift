// What the machine's processors do, all that runs on it counted: whether a figure is bounded by them or by waiting.

import Foundation

/// The processors of this machine.
enum Processors {
    /// How many there are.
    static var count: Int { ProcessInfo.processInfo.processorCount }

    /// Seconds that they were idle since the start of the machine, all together. The kernel counts idle time exactly,
    /// busy time by ticks only.
    static var idleSeconds: Double {
        let text = (try? String(contentsOfFile: "/proc/stat", encoding: .utf8)) ?? ""
        let fields = text.prefix { $0 != "\n" }.split(separator: " ")
        // cpu, user, nice, system, idle, waiting for input and output, in hundredths of a second.
        guard fields.count > 5, let idle = Double(fields[4]), let waiting = Double(fields[5]) else { return 0 }
        return (idle + waiting) / 100
    }
}
