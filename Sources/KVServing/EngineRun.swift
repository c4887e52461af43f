// One replica under load: arrivals go in, first-token and per-token times come out.

import KVModel

/// Runs one replica until every request is answered.
struct EngineRun {
    /// Prompt and output of one request.
    struct Lengths: Sendable {
        var input: Int
        var output: Int
    }

    /// What the engine took, in seconds.
    struct Latencies: Sendable {
        /// First token minus sending, by request.
        var firstToken: [Double] = []
        /// (last − first)/(tokens − 1), by request of at least two tokens.
        var perToken: [Double] = []
        /// Requests that had to be stopped for want of room, each time.
        var preemptions = 0
    }

    private var replica: Replica
    private var space: CountingSpace
    private let requests: [Lengths]
    /// Requests in the order they were sent.
    private var sent: [(request: Int, at: Instant)] = []
    private var enqueued = 0
    private var sentAt: [Instant]
    private var firstAt: [Instant]
    private var latencies = Latencies()

    /// A replica with room for `kvTokens` tokens in blocks of 16. Throws if a request could never fit.
    init(model: ServingModel, batching: Batching, kvTokens: Int, requests: [Lengths]) throws(OperatorError) {
        replica = Replica(model: model, batching: batching)
        space = CountingSpace(capacityTokens: kvTokens, blockTokens: 16)
        self.requests = requests
        sentAt = Array(repeating: .zero, count: requests.count)
        firstAt = sentAt
        if let request = requests.first(where: { $0.input + $0.output > space.capacityBlocks * space.blockTokens }) {
            throw OperatorError(
                "a request of \(request.input + request.output) tokens does not fit into a KV memory of \(kvTokens)")
        }
    }

    /// Requests are sent at the given times, in order.
    mutating func openLoop(arrivals: [Instant]) -> Latencies {
        for (index, time) in arrivals.enumerated() { send(index, at: time) }
        run { _ in nil }
        return latencies
    }

    /// `clients` clients start at time 0; each sends its next request when the last one is answered. Request r is sent
    /// by client r modulo `clients`.
    mutating func closedLoop(clients: Int) -> Latencies {
        let total = requests.count
        for index in 0..<min(clients, total) { send(index, at: .zero) }
        run { answered in
            let next = answered + clients
            return next < total ? next : nil
        }
        return latencies
    }

    private mutating func send(_ index: Int, at time: Instant) {
        sentAt[index] = time
        sent.append((index, time))
    }

    /// Runs until every request is answered; an answer may be followed by another request.
    private mutating func run(following: (Int) -> Int?) {
        var now = Instant.zero
        var answered = 0
        while answered < requests.count {
            enqueueArrived(at: now)
            let nextArrival = enqueued < sent.count ? sent[enqueued].at : .distantFuture
            guard let iteration = replica.startIteration(at: now, until: nextArrival, space: &space) else {
                precondition(nextArrival != .distantFuture, "requests wait that can never start")
                now = nextArrival
                continue
            }
            for case .preempted in replica.events { latencies.preemptions += 1 }
            now = now + iteration.duration
            replica.finishIteration(space: &space)
            for event in replica.events {
                switch event {
                case .firstToken(let number): firstAt[Int(number)] = now
                case .preempted: break
                case .finished(let number):
                    answered += 1
                    record(Int(number), at: now)
                    if let next = following(Int(number)) { send(next, at: now) }
                }
            }
        }
    }

    private mutating func enqueueArrived(at now: Instant) {
        while enqueued < sent.count, sent[enqueued].at <= now {
            let index = sent[enqueued].request
            replica.enqueue(
                ReplicaRequest(
                    number: RequestNumber(index), order: enqueued, inputTokens: requests[index].input,
                    outputTokens: requests[index].output))
            enqueued += 1
        }
    }

    private mutating func record(_ index: Int, at now: Instant) {
        latencies.firstToken.append((firstAt[index] - sentAt[index]).seconds)
        let tokens = requests[index].output
        if tokens > 1 { latencies.perToken.append((now - firstAt[index]).seconds / Double(tokens - 1)) }
    }
}
