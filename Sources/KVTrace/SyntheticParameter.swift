// The table of parameters by name: what each means, the range it may have, and where its default comes from.

import KVModel

/// One number that shapes a kind of traffic.
public struct SyntheticParameter: Sendable {
    /// `kind.name`, as `--set` takes it.
    public var name: String
    /// What it is, with its unit.
    public var meaning: String
    /// Where the default comes from.
    public var source: String
    /// The default.
    public var defaultValue: Double
    /// What may be set.
    public var range: ClosedRange<Double>

    let get: @Sendable (SyntheticWorkload) -> Double?
    let set: @Sendable (inout SyntheticWorkload, Double) -> Void

    /// Those that count things of which there is no half.
    static let wholeNumbers: Set = ["rag.documents", "templates.templates"]

    /// All parameters of all kinds.
    public static let all: [SyntheticParameter] = chat + agent + rag + templates
}

extension SyntheticWorkload {
    fileprivate var chat: ChatWorkload? {
        get { if case .chat(let chat) = self { chat } else { nil } }
        set { if let newValue { self = .chat(newValue) } }
    }

    fileprivate var agent: AgentWorkload? {
        get { if case .agent(let agent) = self { agent } else { nil } }
        set { if let newValue { self = .agent(newValue) } }
    }

    fileprivate var rag: RetrievalWorkload? {
        get { if case .rag(let rag) = self { rag } else { nil } }
        set { if let newValue { self = .rag(newValue) } }
    }

    fileprivate var templates: TemplateWorkload? {
        get { if case .templates(let templates) = self { templates } else { nil } }
        set { if let newValue { self = .templates(newValue) } }
    }

    /// The parameters of this kind with the values they have here.
    public var parameters: [(parameter: SyntheticParameter, value: Double)] {
        SyntheticParameter.all.compactMap { parameter in parameter.get(self).map { (parameter, $0) } }
    }

    /// Sets the parameter of that name, `kind.name`, which must be one of this kind's.
    public mutating func set(_ name: String, to value: Double) throws(OperatorError) {
        guard let parameter = SyntheticParameter.all.first(where: { $0.name == name && $0.get(self) != nil }) else {
            let known = parameters.map(\.parameter.name).joined(separator: ", ")
            throw OperatorError("there is no parameter \(name)", remedy: "known are \(known)")
        }
        guard parameter.range.contains(value) else {
            throw OperatorError(
                "\(name) is \(plain(value)), expected \(plain(parameter.range.lowerBound)) to "
                    + plain(parameter.range.upperBound))
        }
        guard !SyntheticParameter.wholeNumbers.contains(name) || value == value.rounded() else {
            throw OperatorError("\(name) is \(plain(value)), expected a whole number")
        }
        parameter.set(&self, value)
    }
}

/// A number without a needless fraction.
func plain(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
}

private let tokensOnce = 1.0...1_000_000.0
private let tokensOrNone = 0.0...1_000_000.0
private let counts = 1.0...1_000_000.0
private let shares = 0.0...1.0
private let spreads = 0.0...3.0
private let secondsRange = 0.0...86_400.0

/// A place in a value that a number or a part can be written to.
private typealias Place<Root, Value> = any WritableKeyPath<Root, Value> & Sendable

extension SyntheticParameter {
    /// One row: name, place, range, meaning, source of the default.
    private typealias Row<Workload> = (String, Place<Workload, Double>, ClosedRange<Double>, String, String)

    private static func table<Workload>(
        _ kind: String, _ defaults: Workload, _ part: Place<SyntheticWorkload, Workload?>, _ rows: [Row<Workload>]
    ) -> [SyntheticParameter] {
        rows.map { name, place, range, meaning, source in
            SyntheticParameter(
                name: "\(kind).\(name)", meaning: meaning, source: source, defaultValue: defaults[keyPath: place],
                range: range, get: { $0[keyPath: part]?[keyPath: place] },
                set: { $0[keyPath: part]?[keyPath: place] = $1 })
        }
    }

    private static let mooncake = "Mooncake conversation trace, FAST 2025"
    private static let lmsys = "LMSYS-Chat-1M, ICLR 2024"
    private static let claude = "338 Claude Code sessions, kv-cache-tester (WEKA), 2025"
    private static let ragCache = "RAGCache, arXiv 2404.12457"
    private static let preble = "ToolBench row of Preble, ICLR 2025"
    private static let azure = "Azure LLM inference trace 2023, conversation (Splitwise, ISCA 2024)"
    private static let chosen = "chosen"

    private static let chat = table(
        "chat", ChatWorkload(), \.chat,
        [
            ("system", \.systemTokens, tokensOrNone, "system prompt all conversations share, tokens", chosen),
            ("first", \.firstMessage.median, tokensOnce, "first message, median tokens", mooncake),
            ("firstSpread", \.firstMessage.spread, spreads, "its spread", mooncake),
            ("followUp", \.followUp.median, tokensOnce, "later messages, median tokens", chosen),
            ("followUpSpread", \.followUp.spread, spreads, "their spread", chosen),
            ("answer", \.answer.median, tokensOnce, "answer, median tokens", mooncake),
            ("answerSpread", \.answer.spread, spreads, "its spread", mooncake),
            ("multiTurn", \.multiTurnShare, shares, "share of conversations with a second turn", lmsys),
            ("turns", \.meanTurns, 1...1000, "mean turns of a conversation", lmsys),
            ("pause", \.pause.median, secondsRange, "pause before a follow-up, median seconds", claude),
            ("pauseSpread", \.pause.spread, spreads, "its spread", claude),
            ("context", \.contextTokens, 1024...1_000_000, "a conversation ends before this many tokens", chosen),
        ])

    private static let agent = table(
        "agent", AgentWorkload(), \.agent,
        [
            ("shared", \.sharedTokens, tokensOrNone, "tools and instructions all sessions share, tokens", claude),
            ("project", \.project.median, tokensOnce, "project context of a session, median tokens", claude),
            ("projectSpread", \.project.spread, spreads, "its spread", claude),
            ("request", \.request.median, tokensOnce, "what a person types, median tokens", chosen),
            ("requestSpread", \.request.spread, spreads, "its spread", chosen),
            ("toolResult", \.toolResult.median, tokensOnce, "a tool's result, median tokens", claude),
            ("toolResultSpread", \.toolResult.spread, spreads, "its spread", claude),
            ("answer", \.answer.median, tokensOnce, "answer, median tokens", claude),
            ("answerSpread", \.answer.spread, spreads, "its spread", claude),
            ("calls", \.callsPerTurn, 1...1000, "mean calls until a person is asked again", claude),
            ("nextTurn", \.nextTurnShare, 0...0.999, "share of turns after which the person goes on", claude),
            ("toolPause", \.toolPause.median, secondsRange, "run time of a tool, median seconds", claude),
            ("toolPauseSpread", \.toolPause.spread, spreads, "its spread", claude),
            ("humanPause", \.humanPause.median, secondsRange, "pause of a person, median seconds", claude),
            ("humanPauseSpread", \.humanPause.spread, spreads, "its spread", claude),
            ("subAgents", \.subAgentShare, shares, "share of sessions that start a sub-agent", claude),
            ("subAgentShared", \.subAgentTokens, tokensOrNone, "what sub-agents share, tokens", claude),
            ("subAgentCalls", \.subAgentCalls, 1...1000, "mean calls of a sub-agent", claude),
            ("context", \.contextTokens, 4096...1_000_000, "context that is summarised when full, tokens", claude),
            ("summary", \.summary.median, tokensOnce, "summary of a full context, median tokens", chosen),
            ("summarySpread", \.summary.spread, spreads, "its spread", chosen),
        ])

    private static let rag = table(
        "rag", RetrievalWorkload(), \.rag,
        [
            ("system", \.systemTokens, tokensOrNone, "instructions all requests share, tokens", chosen),
            ("documents", \.documents, counts, "documents in the collection", chosen),
            ("document", \.documentLength.median, tokensOnce, "a document, median tokens", ragCache),
            ("documentSpread", \.documentLength.spread, spreads, "its spread", chosen),
            ("perRequest", \.documentsPerRequest, 1...100, "documents in a prompt", ragCache),
            ("skew", \.skew, 0...3, "Zipf exponent of documents; 1.0: 3 % of them get 57 % of requests", ragCache),
            ("question", \.question.median, tokensOnce, "question, median tokens", ragCache),
            ("questionSpread", \.question.spread, spreads, "its spread", chosen),
            ("answer", \.answer.median, tokensOnce, "answer, median tokens", azure),
            ("answerSpread", \.answer.spread, spreads, "its spread", azure),
        ])

    private static let templates = table(
        "templates", TemplateWorkload(), \.templates,
        [
            ("templates", \.templates, counts, "templates in use", chosen),
            ("template", \.templateLength.median, tokensOnce, "a template, median tokens", preble),
            ("templateSpread", \.templateLength.spread, spreads, "its spread", chosen),
            ("skew", \.skew, 0...3, "Zipf exponent of templates", chosen),
            ("input", \.input.median, tokensOnce, "what is filled in, median tokens", preble),
            ("inputSpread", \.input.spread, spreads, "its spread", chosen),
            ("answer", \.answer.median, tokensOnce, "answer, median tokens", preble),
            ("answerSpread", \.answer.spread, spreads, "its spread", preble),
        ])
}
