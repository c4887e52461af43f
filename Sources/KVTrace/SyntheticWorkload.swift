// The kinds of traffic that can be made, and their parameters. Every default is a published or counted figure, and
// its source stands beside it; `holdfast trace synth --parameters` prints this table.

import KVModel

/// A log-normal length or time: half of the draws are below `median`; `spread` is the standard deviation of the
/// natural logarithm. Token lengths and human pauses of all public traces are close to it over two decades.
public struct LogNormal: Sendable, Equatable {
    /// The middle of the distribution.
    public var median: Double
    /// The standard deviation of the logarithm; 0 makes every draw the median.
    public var spread: Double

    /// A distribution of given median and spread.
    public init(median: Double, spread: Double) {
        self.median = median
        self.spread = spread
    }
}

/// One kind of traffic with its parameters.
public enum SyntheticWorkload: Sendable, Equatable {
    /// People who chat.
    case chat(ChatWorkload)
    /// Coding agents.
    case agent(AgentWorkload)
    /// Retrieval.
    case rag(RetrievalWorkload)
    /// Filled-in templates.
    case templates(TemplateWorkload)

    /// The names of the kinds, as options spell them.
    public static let kindNames = ["chat", "agent", "rag", "templates"]

    /// The kind of that name with its default parameters.
    public init?(kind: String) {
        switch kind {
        case "chat": self = .chat(ChatWorkload())
        case "agent": self = .agent(AgentWorkload())
        case "rag": self = .rag(RetrievalWorkload())
        case "templates": self = .templates(TemplateWorkload())
        default: return nil
        }
    }

    /// The kind's name.
    public var kind: String {
        switch self {
        case .chat: "chat"
        case .agent: "agent"
        case .rag: "rag"
        case .templates: "templates"
        }
    }
}

/// People who chat: a shared system prompt, a first message that may carry a document, follow-ups after a pause.
public struct ChatWorkload: Sendable, Equatable {
    /// Tokens of the system prompt that all conversations share.
    public var systemTokens = 512.0
    /// Tokens of the first message.
    public var firstMessage = LogNormal(median: 3000, spread: 1.4)
    /// Tokens of a later message.
    public var followUp = LogNormal(median: 200, spread: 1.2)
    /// Tokens of an answer.
    public var answer = LogNormal(median: 230, spread: 0.9)
    /// Share of conversations that have a second turn.
    public var multiTurnShare = 0.5
    /// Mean turns of a conversation.
    public var meanTurns = 2.0
    /// Seconds between an answer and the next message.
    public var pause = LogNormal(median: 182, spread: 1.75)
    /// A conversation ends before its prompt has this many tokens.
    public var contextTokens = 131_072.0

    /// The published defaults.
    public init() {}
}

/// Coding agents: long contexts that grow by every tool's result, seconds between calls, minutes between people's
/// turns, sub-agents, and a summary in place of the history when the context is full.
public struct AgentWorkload: Sendable, Equatable {
    /// Tokens of the tools and instructions that all sessions share.
    public var sharedTokens = 15_000.0
    /// Tokens of what a session knows of its project.
    public var project = LogNormal(median: 6000, spread: 1.2)
    /// Tokens of what a person types.
    public var request = LogNormal(median: 120, spread: 1.2)
    /// Tokens of a tool's result.
    public var toolResult = LogNormal(median: 256, spread: 1.65)
    /// Tokens of an answer.
    public var answer = LogNormal(median: 216, spread: 1.1)
    /// Mean calls until a person is asked again.
    public var callsPerTurn = 17.5
    /// Share of turns after which the person goes on.
    public var nextTurnShare = 0.8
    /// Seconds that a tool runs.
    public var toolPause = LogNormal(median: 8, spread: 1.3)
    /// Seconds until a person answers.
    public var humanPause = LogNormal(median: 182, spread: 1.75)
    /// Share of sessions that start a sub-agent.
    public var subAgentShare = 0.07
    /// Tokens that all sub-agents share.
    public var subAgentTokens = 9500.0
    /// Mean calls of a sub-agent.
    public var subAgentCalls = 9.0
    /// A context near this many tokens is summarised.
    public var contextTokens = 200_000.0
    /// Tokens of the summary of a full context.
    public var summary = LogNormal(median: 8000, spread: 0.5)

    /// The published defaults.
    public init() {}
}

/// Retrieval: instructions, the documents found for the question in order of relevance, the question.
public struct RetrievalWorkload: Sendable, Equatable {
    /// Tokens of the instructions that all requests share.
    public var systemTokens = 256.0
    /// Documents in the collection.
    public var documents = 2000.0
    /// Tokens of a document.
    public var documentLength = LogNormal(median: 2500, spread: 0.9)
    /// Documents in a prompt.
    public var documentsPerRequest = 2.0
    /// Zipf exponent of the documents' popularity.
    public var skew = 1.0
    /// Tokens of a question.
    public var question = LogNormal(median: 80, spread: 0.6)
    /// Tokens of an answer.
    public var answer = LogNormal(median: 129, spread: 0.9)

    /// The published defaults.
    public init() {}
}

/// Applications that fill prompt templates: a popular few instructions with examples, then a short input of its own.
public struct TemplateWorkload: Sendable, Equatable {
    /// Templates in use.
    public var templates = 200.0
    /// Tokens of a template.
    public var templateLength = LogNormal(median: 1560, spread: 0.6)
    /// Zipf exponent of the templates' popularity.
    public var skew = 1.0
    /// Tokens of what is filled in.
    public var input = LogNormal(median: 230, spread: 0.6)
    /// Tokens of an answer.
    public var answer = LogNormal(median: 43, spread: 0.5)

    /// The published defaults.
    public init() {}
}

/// The average time an answer takes where only its length is known.
///
/// Fitted to 15,881 calls of coding agents to a hosted API, whose mean is 9.67 s for 434 tokens and median 6.1 s for 216 tokens
/// (kv-cache-tester, callanjfox/WEKA, 2025, `api_time`).
struct ServiceTime {
    static let firstSeconds = 1.9
    static let secondsPerToken = 0.0179

    static func seconds(answerTokens: Int) -> Double { firstSeconds + secondsPerToken * Double(answerTokens) }
}
