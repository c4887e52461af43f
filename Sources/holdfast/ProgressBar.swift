// One progress bar for long work, on standard error, so that a pipe behind standard output never sees it.

import Glibc
import KVSettings

/// A bar on standard error while something takes long. On a terminal it appears after half a second; elsewhere only
/// with `--progress`, as a line every five seconds. It takes itself away when it is done.
final class ProgressBar {
    /// Whether standard error can redraw a line.
    private static let canRedraw: Bool = {
        guard isatty(STDERR_FILENO) == 1, let term = unsafe getenv("TERM") else { return false }
        return unsafe String(cString: term) != "dumb"
    }()

    private let label: String
    private let isForced: Bool
    private let start = monotonicSeconds()
    private var lastShown = 0.0
    private var isVisible = false

    /// A bar for the work that `label` names: "reading trace". `forced` is `--progress`.
    init(_ label: String, forced: Bool = false) {
        self.label = label
        isForced = forced
    }

    deinit { finish() }

    /// Shows how much is done, from 0 to 1; `nil` when the whole is not known. Cheap enough to be called often.
    /// `detail` is put behind the bar: "412 MB".
    func update(_ fraction: Double?, detail: @autoclosure () -> String = "") {
        guard Self.canRedraw || isForced else { return }
        let now = monotonicSeconds()
        if now - start < 0.5 { return }
        if now - lastShown < (Self.canRedraw ? 0.1 : 5) { return }
        lastShown = now
        let line = text(fraction, elapsed: now - start, detail: detail())
        if Self.canRedraw {
            writeError("\r\u{1B}[2K" + line)
            isVisible = true
        } else {
            writeError(line + "\n")
        }
    }

    /// Takes the bar away.
    func finish() {
        if isVisible { writeError("\r\u{1B}[2K") }
        isVisible = false
    }

    private func text(_ fraction: Double?, elapsed: Double, detail: String) -> String {
        let tail = detail.isEmpty ? "" : "  \(detail)"
        guard let fraction else { return "\(label) … \(Int(elapsed)) s\(tail)" }
        let share = min(max(fraction, 0), 1)
        let width = 30
        let filled = Int((share * Double(width)).rounded(.down))
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: width - filled)
        let left = share > 0.02 ? "  \(Int((elapsed / share * (1 - share)).rounded(.up))) s left" : ""
        return "\(label) \(bar) \(Int(share * 100)) %\(left)\(tail)"
    }
}

/// Writes a line to standard error: what is good to know and belongs to no result.
func note(_ text: String) { writeError(text + "\n") }

private func writeError(_ text: String) { _ = writeAll(Array(text.utf8), to: STDERR_FILENO) }

private func monotonicSeconds() -> Double {
    var now = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &now)
    return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
}
