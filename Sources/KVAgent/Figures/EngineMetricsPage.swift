// What an inference engine's own `/metrics` says of its requests, read from Prometheus' text. Tolerant: what is not understood is
// left out, and a line that makes no sense costs only itself.

/// The figures of an engine's page that a report can use.
public struct EngineMetricsPage: Sendable, Equatable {
    /// Ends of buckets that are told apart at most.
    public static let boundsMax = 64

    /// Time to first token since the engine's start, seconds: how many took at most so long, by ascending end; the last is infinite.
    public private(set) var firstToken: [(bound: Double, count: UInt64)] = []
    /// All of them together, seconds.
    public private(set) var firstTokenSum = 0.0
    /// Requests that run and that wait now; nil: the page does not say.
    public private(set) var running: Double?
    /// See `running`.
    public private(set) var waiting: Double?
    /// The share of the engine's own KV cache in use, 0 to 1; nil: the page does not say.
    public private(set) var cacheUse: Double?

    // vLLM's names, then SGLang's.
    private static let firstTokenNames = ["vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"]
    private static let runningNames: Set = ["vllm:num_requests_running", "sglang:num_running_reqs"]
    private static let waitingNames: Set = ["vllm:num_requests_waiting", "sglang:num_queue_reqs"]
    private static let cacheNames: Set = [
        "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage",
    ]

    /// Reads a page. Samples of one name with other labels (models, ranks) are added up; of the cache's use the largest counts.
    public init(_ text: String) {
        var buckets: [Double: UInt64] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            guard let sample = Self.sample(line) else { continue }
            let name = sample.name
            if Self.runningNames.contains(name) {
                running = (running ?? 0) + max(0, sample.value)
            } else if Self.waitingNames.contains(name) {
                waiting = (waiting ?? 0) + max(0, sample.value)
            } else if Self.cacheNames.contains(name) {
                cacheUse = min(1, max(cacheUse ?? 0, sample.value))
            } else if let whole = Self.firstTokenNames.first(where: { name.hasPrefix($0) }) {
                switch name.dropFirst(whole.count) {
                case "_sum": firstTokenSum += max(0, sample.value)
                case "_bucket":
                    guard let bound = sample.bound, sample.value >= 0, sample.value < 1e18,
                        buckets.count < Self.boundsMax || buckets[bound] != nil
                    else { continue }
                    let (sum, overflows) = buckets[bound, default: 0].addingReportingOverflow(UInt64(sample.value))
                    buckets[bound] = overflows ? .max : sum
                default: break
                }
            }
        }
        firstToken = buckets.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// One line's name, the end of its bucket if it is one, and its number.
    private static func sample(_ line: Substring) -> (name: String, bound: Double?, value: Double)? {
        guard let first = line.first, first != "#" else { return nil }
        let nameEnd = line.firstIndex { $0 == "{" || $0 == " " || $0 == "\t" } ?? line.endIndex
        let name = String(line[..<nameEnd])
        var rest = line[nameEnd...]
        var bound: Double?
        if rest.first == "{" {
            guard let labels = labels(&rest) else { return nil }
            if let end = labels["le"] { bound = number(end[...]) }
        }
        // A time may follow the value.
        guard let word = rest.split(whereSeparator: { $0 == " " || $0 == "\t" }).first, let value = number(word),
            value.isFinite
        else { return nil }
        return (name, bound, value)
    }

    /// The labels in braces, which may hold braces, commas and quotes in their values; leaves what is behind.
    private static func labels(_ rest: inout Substring) -> [String: String]? {
        var labels: [String: String] = [:]
        var name = ""
        var value = ""
        var isQuoted = false
        var isEscaped = false
        for index in rest.indices.dropFirst() {
            let letter = rest[index]
            if isQuoted {
                if isEscaped {
                    value.append(letter == "n" ? "\n" : letter)
                    isEscaped = false
                } else if letter == "\\" {
                    isEscaped = true
                } else if letter == "\"" {
                    isQuoted = false
                    labels[name] = value
                } else {
                    value.append(letter)
                }
                continue
            }
            switch letter {
            case "}":
                rest = rest[rest.index(after: index)...]
                return labels
            case "\"": (isQuoted, value) = (true, "")
            case ",": name = ""
            case "=", " ": break
            default: name.append(letter)
            }
        }
        return nil
    }

    private static func number(_ text: Substring) -> Double? {
        switch text {
        case "+Inf", "Inf": .infinity
        case "-Inf": -.infinity
        default: Double(text)
        }
    }

    /// Whether two pages say the same.
    public static func == (left: EngineMetricsPage, right: EngineMetricsPage) -> Bool {
        left.firstToken.elementsEqual(right.firstToken) { $0.bound == $1.bound && $0.count == $1.count }
            && left.firstTokenSum == right.firstTokenSum && left.running == right.running
            && left.waiting == right.waiting && left.cacheUse == right.cacheUse
    }
}
