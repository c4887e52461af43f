// Plays one session of a kind of traffic: what is asked, when, and with which content before it.

import KVModel

/// Makes the sessions of one part of a specification.
struct SessionGenerator {
    private let workload: SyntheticWorkload
    private let seed: UInt64
    private let part: UInt64
    /// Lengths of the documents or templates, most popular first.
    private let sharedLengths: [Int]
    private let popularity: ZipfChoice?

    init(workload: SyntheticWorkload, seed: UInt64, part: Int) {
        self.workload = workload
        self.seed = mixBits(seed &+ 0x51_7CC1_B727_220A &* UInt64(part + 1))
        self.part = UInt64(part)
        var random = RandomSource(seed: mixBits(self.seed ^ 0x0D0C))
        switch workload {
        case .rag(let rag):
            sharedLengths = (0..<Int(rag.documents)).map { _ in random.tokens(rag.documentLength, limit: 200_000) }
            popularity = ZipfChoice(count: Int(rag.documents), skew: rag.skew)
        case .templates(let templates):
            sharedLengths = (0..<Int(templates.templates)).map { _ in
                random.tokens(templates.templateLength, limit: 200_000)
            }
            popularity = ZipfChoice(count: Int(templates.templates), skew: templates.skew)
        case .chat, .agent:
            (sharedLengths, popularity) = ([], nil)
        }
    }

    /// The name of a text that all sessions of the part share.
    private func sharedText(_ index: Int) -> UInt64 { mixBits(seed ^ mixBits(UInt64(index) &+ 1)) }

    /// Plays the session from its start until it ends or the recording does.
    func run(session: UInt64, from start: Double, until end: Double, into recorder: inout SyntheticRecorder) {
        let random = RandomSource(seed: mixBits(seed ^ mixBits(session &+ 0xA5A5_0000_0000)))
        var play = SessionPlay(
            random: random, time: start, end: end, conversation: recorder.newConversation(),
            path: recorder.newPath(), content: ContentPath(blockTokens: recorder.blockTokens))
        switch workload {
        case .chat(let chat): runChat(chat, &play, &recorder)
        case .agent(let agent): runAgent(agent, &play, &recorder)
        case .rag(let rag): runRetrieval(rag, &play, &recorder)
        case .templates(let templates): runTemplate(templates, &play, &recorder)
        }
    }

    private func runChat(_ chat: ChatWorkload, _ play: inout SessionPlay, _ recorder: inout SyntheticRecorder) {
        // Turns after the first, given that there is a second, are geometric: 1 + multiTurn · (their mean) = mean turns.
        let laterMean = chat.multiTurnShare > 0 ? max(1, (chat.meanTurns - 1) / chat.multiTurnShare) : 1
        play.content.append(text: sharedText(0), tokens: Int(chat.systemTokens))
        play.hear(chat.firstMessage, limit: Int(chat.contextTokens / 2))
        var isFirst = true
        while true {
            let answer = play.random.tokens(chat.answer, limit: 16_384)
            play.ask(answer: answer, stop: .endTurn, &recorder)
            if !play.random.happens(isFirst ? chat.multiTurnShare : 1 - 1 / laterMean) { return }
            isFirst = false
            play.wait(chat.pause)
            play.hear(chat.followUp, limit: 32_768)
            if play.isOver || play.content.tokens + 16_384 > Int(chat.contextTokens) { return }
        }
    }

    private func runAgent(_ agent: AgentWorkload, _ play: inout SessionPlay, _ recorder: inout SyntheticRecorder) {
        let limit = Int(agent.contextTokens)
        play.content.append(text: sharedText(0), tokens: min(Int(agent.sharedTokens), limit / 2))
        play.hear(agent.project, limit: limit / 4)
        play.hear(agent.request, limit: 32_768)
        let subAgentCall = play.random.happens(agent.subAgentShare) ? play.random.below(20) : -1
        var call = 0
        while !play.isOver {
            if call == subAgentCall { runSubAgent(agent, &play, &recorder) }
            let answer = play.random.tokens(agent.answer, limit: 32_768)
            let asksForTool = play.random.happens(1 - 1 / agent.callsPerTurn)
            play.ask(answer: answer, stop: asksForTool ? .toolUse : .endTurn, &recorder)
            call += 1
            if asksForTool {
                play.wait(agent.toolPause)
                play.hear(agent.toolResult, limit: min(65_536, limit / 4))
            } else {
                if !play.random.happens(agent.nextTurnShare) { return }
                play.wait(agent.humanPause)
                play.hear(agent.request, limit: 32_768)
            }
            if play.content.tokens + min(40_000, limit / 4) > limit { summarise(agent, &play, &recorder) }
        }
    }

    /// The context is full: what was said becomes a summary behind the shared front, and a new path begins.
    private func summarise(_ agent: AgentWorkload, _ play: inout SessionPlay, _ recorder: inout SyntheticRecorder) {
        play.path = recorder.newPath()
        play.content = ContentPath(blockTokens: recorder.blockTokens)
        let limit = Int(agent.contextTokens)
        play.content.append(text: sharedText(0), tokens: min(Int(agent.sharedTokens), limit / 2))
        play.hear(agent.summary, limit: limit / 4)
    }

    /// A sub-agent works while its caller waits; it is a conversation of its own.
    private func runSubAgent(_ agent: AgentWorkload, _ caller: inout SessionPlay, _ recorder: inout SyntheticRecorder) {
        var play = SessionPlay(
            random: RandomSource(seed: caller.random.next()), time: caller.time, end: caller.end,
            conversation: recorder.newConversation(), path: recorder.newPath(),
            content: ContentPath(blockTokens: recorder.blockTokens))
        let limit = Int(agent.contextTokens)
        play.content.append(text: sharedText(1), tokens: min(Int(agent.subAgentTokens), limit / 2))
        play.hear(agent.request, limit: 32_768)
        while !play.isOver, play.content.tokens + min(40_000, limit / 4) <= limit {
            let answer = play.random.tokens(agent.answer, limit: 32_768)
            let goesOn = play.random.happens(1 - 1 / agent.subAgentCalls)
            play.ask(answer: answer, stop: goesOn ? .toolUse : .endTurn, &recorder)
            if !goesOn { break }
            play.wait(agent.toolPause)
            play.hear(agent.toolResult, limit: min(65_536, limit / 4))
        }
        caller.time = play.time
    }

    private func runRetrieval(
        _ rag: RetrievalWorkload, _ play: inout SessionPlay, _ recorder: inout SyntheticRecorder
    ) {
        play.content.append(text: sharedText(0), tokens: Int(rag.systemTokens))
        var chosen: [Int] = []
        let wanted = min(Int(rag.documentsPerRequest), sharedLengths.count)
        while chosen.count < wanted {
            // Under a strong skew the same few come up again and again: after some tries the next in rank is taken.
            var document = popularity!.draw(&play.random)
            var tries = 0
            while chosen.contains(document) {
                tries += 1
                document = tries < 16 ? popularity!.draw(&play.random) : (document + 1) % sharedLengths.count
            }
            chosen.append(document)
        }
        for document in chosen {
            play.content.append(text: sharedText(document + 1), tokens: sharedLengths[document])
        }
        play.hear(rag.question, limit: 4096)
        let answer = play.random.tokens(rag.answer, limit: 8192)
        play.ask(answer: answer, stop: .endTurn, &recorder)
    }

    private func runTemplate(
        _ templates: TemplateWorkload, _ play: inout SessionPlay, _ recorder: inout SyntheticRecorder
    ) {
        let template = popularity!.draw(&play.random)
        play.content.append(text: sharedText(template + 1), tokens: sharedLengths[template])
        play.hear(templates.input, limit: 32_768)
        let answer = play.random.tokens(templates.answer, limit: 8192)
        play.ask(answer: answer, stop: .endTurn, &recorder)
    }
}

/// A session while it is played.
private struct SessionPlay {
    var random: RandomSource
    var time: Double
    let end: Double
    let conversation: Int
    var path: Int
    var content: ContentPath
    private var turn = 0
    /// When the last answer ended.
    private var answered = 0.0

    init(random: RandomSource, time: Double, end: Double, conversation: Int, path: Int, content: ContentPath) {
        self.random = random
        self.time = time
        self.end = end
        self.conversation = conversation
        self.path = path
        self.content = content
    }

    var isOver: Bool { time >= end }

    /// A text of its own joins the content.
    mutating func hear(_ length: LogNormal, limit: Int) {
        content.append(text: random.next(), tokens: random.tokens(length, limit: limit))
    }

    /// Sends the content as a prompt and appends the answer to it.
    mutating func ask(answer: Int, stop: StopReason, _ recorder: inout SyntheticRecorder) {
        let service = ServiceTime.seconds(answerTokens: answer)
        if !isOver {
            recorder.record(
                at: time, content: content, path: path, output: answer, conversation: conversation, turn: turn,
                stop: stop, service: service, think: turn == 0 ? nil : time - answered)
        }
        turn += 1
        time += service
        answered = time
        content.append(text: random.next(), tokens: answer)
    }

    mutating func wait(_ length: LogNormal) {
        time += random.logNormal(length)
    }
}
