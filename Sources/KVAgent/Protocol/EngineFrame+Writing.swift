// Frames as they are written. What does not fit the protocol is our own bug here: whoever builds frames keeps its limits.

import KVModel
import KVSystem
import KVTiering
import KVTransport

extension EngineFrame {
    /// The header that belongs to it, without its length.
    package var header: EngineFrameHeader {
        switch self {
        case .hello: EngineFrameHeader(.hello)
        case .addRegion: EngineFrameHeader(.addRegion)
        case .dropRegion: EngineFrameHeader(.dropRegion)
        case .openArena: EngineFrameHeader(.openArena)
        case .take(let take): EngineFrameHeader(.take, ticket: take.job)
        case .reserve(let reserve): EngineFrameHeader(.reserve, ticket: reserve.job)
        case .commit(let commit): EngineFrameHeader(.commit, ticket: commit.job)
        case .release(let ticket, _): EngineFrameHeader(.release, ticket: ticket)
        case .lookUp(let lookUp): EngineFrameHeader(.lookUp, ticket: lookUp.ticket)
        case .load(let load): EngineFrameHeader(.load, ticket: load.job)
        case .save(let save): EngineFrameHeader(.save, ticket: save.job)
        case .finished(let end): EngineFrameHeader(.finished, ticket: end.ticket)
        case .cancel(let ticket): EngineFrameHeader(.cancel, ticket: ticket)
        case .prefetch: EngineFrameHeader(.prefetch)
        case .touch: EngineFrameHeader(.touch)
        case .pin(let ticket, _, _): EngineFrameHeader(.pin, ticket: ticket)
        case .unpin(let ticket): EngineFrameHeader(.unpin, ticket: ticket)
        case .subscribe: EngineFrameHeader(.subscribe)
        case .askStatistics(let ticket): EngineFrameHeader(.askStatistics, ticket: ticket)
        case .ping(let ticket, _): EngineFrameHeader(.ping, ticket: ticket)
        case .goodbye: EngineFrameHeader(.goodbye)
        case .welcome: EngineFrameHeader(.welcome)
        case .regionAdded: EngineFrameHeader(.regionAdded)
        case .regionDropped: EngineFrameHeader(.regionDropped)
        case .arenaOpened: EngineFrameHeader(.arenaOpened)
        case .taken(let job, _): EngineFrameHeader(.taken, ticket: job)
        case .reserved(let job, _): EngineFrameHeader(.reserved, ticket: job)
        case .committed(let job, _): EngineFrameHeader(.committed, ticket: job)
        case .released(let ticket, _): EngineFrameHeader(.released, ticket: ticket)
        case .found(let ticket, _): EngineFrameHeader(.found, ticket: ticket)
        case .loaded(let job, _): EngineFrameHeader(.loaded, ticket: job)
        case .saved(let job, _): EngineFrameHeader(.saved, ticket: job)
        case .cancelled(let ticket): EngineFrameHeader(.cancelled, ticket: ticket)
        case .pinned(let ticket, _, _): EngineFrameHeader(.pinned, ticket: ticket)
        case .changed: EngineFrameHeader(.changed)
        case .statistics(let ticket, _): EngineFrameHeader(.statistics, ticket: ticket)
        case .pong(let ticket, _): EngineFrameHeader(.pong, ticket: ticket)
        case .farewell: EngineFrameHeader(.farewell)
        case .refused(let ticket, _): EngineFrameHeader(.refused, ticket: ticket)
        }
    }

    /// Appends it.
    ///
    /// - Parameter now: The moment from which its deadlines count.
    package func write(to writer: inout FrameWriter, at now: Instant) {
        var header = header
        if case .changed(_, _, let hasGap) = self { header.hasGap = hasGap }
        unsafe writer.frame(headerBytes: EngineProtocol.headerBytes) { writer in
            if header.kind.isFromEngine {
                writeRequest(to: &writer, now)
            } else {
                writeReply(to: &writer)
            }
        } header: { bytes, bodyBytes in
            precondition(bodyBytes <= EngineProtocol.bodyBytesMax, "a frame longer than the protocol allows")
            header.bodyBytes = bodyBytes
            unsafe header.write(to: bytes)
        }
    }

    /// Its bytes alone.
    public func bytes(at now: Instant = .zero) -> [UInt8] {
        var writer = FrameWriter()
        write(to: &writer, at: now)
        return writer.bytes
    }

    private func writeRequest(to writer: inout FrameWriter, _ now: Instant) {
        switch self {
        case .hello(let greeting): writer.greeting(greeting)
        case .addRegion(let region, let byteCount):
            writer.region(region)
            writer.integer(UInt64(byteCount))
        case .dropRegion(let region): writer.region(region)
        case .lookUp(let lookUp):
            writer.integer(UInt32(lookUp.promptTokens))
            writer.integer(UInt32(lookUp.engineBlocks))
            writer.integer(lookUp.session)
            writer.integer(lookUp.turn)
            writer.integer(UInt32(0))
            writer.chain(lookUp.names)
        case .load(let load):
            writer.integer(load.request)
            writer.integer(UInt32(load.first))
            writer.integer(UInt16(0))
            writer.integer(load.asker)
            writer.duration(load.computeWait)
            let wait = load.deadline == .distantFuture ? 0 : max(1, (load.deadline - now).nanoseconds)
            writer.integer(UInt64(wait))
            writer.chain(load.names)
            writer.places(load.places)
        case .save(let save):
            writer.integer(save.request)
            writer.integer(UInt32(save.first))
            writer.integer(UInt16(save.evictionClass))
            writer.integer(save.asker)
            writer.chain(save.names)
            writer.places(save.places)
        case .finished(let end):
            writer.integer(UInt32(end.reason.rawValue))
            writer.integer(end.cachedTokens)
            writer.duration(end.timeToFirstToken)
            writer.duration(end.resumesAfter)
            writer.integer(UInt32(end.answerTokens))
            writer.integer(UInt32(0))
        case .prefetch(let names), .touch(let names): writer.chain(names)
        case .pin(_, let names, let lifetime):
            writer.duration(lifetime)
            writer.chain(names)
        case .ping(_, let bytes): writer.raw(bytes)
        case .openArena, .take, .reserve, .commit, .release: writeLoan(to: &writer, now)
        default: break
        }
    }

    private func writeReply(to writer: inout FrameWriter) {
        switch self {
        case .welcome(let welcome): writer.welcome(welcome)
        case .regionAdded(let region), .regionDropped(let region): writer.region(region)
        case .found(_, let found):
            for count in [found.hitBlocks, found.hbmBlocks, found.dramBlocks, found.nvmeBlocks, found.flashBlocks, 0] {
                writer.integer(count)
            }
        case .loaded(_, let loaded):
            writer.integer(UInt32(loaded.first))
            writer.integer(UInt32(loaded.end))
            writer.integer(loaded.bytes)
            writer.duration(loaded.time)
        case .arenaOpened, .taken, .reserved, .released: writeLoanReply(to: &writer)
        case .saved(_, let saved), .committed(_, let saved):
            writer.integer(UInt32(saved.count))
            writer.integer(UInt32(0))
            writer.integer(saved.bytes)
            writer.duration(saved.time)
            for word in saved.kept { writer.integer(word) }
        case .pinned(_, let outcome, let blocks):
            writer.integer(UInt32(outcome.rawValue))
            writer.integer(blocks)
        case .changed(let added, let removed, _):
            writer.integer(UInt32(added.count))
            writer.integer(UInt32(removed.count))
            for name in added { writer.name(name) }
            for name in removed { writer.name(name) }
        case .statistics(_, let statistics):
            writer.integer(UInt32(statistics.count))
            for statistic in statistics {
                writer.text(statistic.name)
                writer.integer(statistic.value)
            }
        case .pong(_, let bytes): writer.raw(bytes)
        case .farewell(let reason): writer.text(reason.prefixed(), bytesMax: EngineProtocol.valueBytesMax)
        case .refused(_, let refusal):
            writer.integer(refusal.code.rawValue)
            writer.text(refusal.reason.prefixed(), bytesMax: EngineProtocol.valueBytesMax)
        default: break
        }
    }
}

extension String {
    /// As much of it as a reason may hold: what an engine said may be quoted in it.
    fileprivate func prefixed() -> String {
        guard utf8.count > EngineProtocol.valueBytesMax else { return self }
        return String(decoding: Array(utf8.prefix(EngineProtocol.valueBytesMax - 4)), as: UTF8.self)
    }
}

extension FrameWriter {
    mutating func duration(_ duration: Duration) { integer(UInt64(max(0, duration.nanoseconds))) }

    fileprivate mutating func region(_ region: Int32) {
        integer(UInt32(region))
        integer(UInt32(0))
    }

    mutating func chain(_ names: [ObjectName]) {
        precondition(names.count <= EngineProtocol.keyCountMax, "a chain longer than the protocol allows")
        let part = names.first ?? ObjectName(.none)
        integer(UInt32(names.count))
        integer(part.group)
        integer(part.shard)
        integer(part.shardCount)
        integer(UInt16(0))
        let isOfOne = names.allSatisfy {
            $0.group == part.group && $0.shard == part.shard && $0.shardCount == part.shardCount
        }
        precondition(isOfOne, "a chain of several groups or shards")
        keys(of: names)
    }

    fileprivate mutating func places(_ places: EnginePlaces) {
        precondition(places.slices.count <= EngineProtocol.sliceCountMax, "more slices than the protocol allows")
        integer(UInt32(places.blockCount))
        integer(UInt16(places.segmentsPerBlock))
        integer(UInt16(0))
        for slice in places.slices {
            integer(UInt32(slice.region))
            integer(UInt32(slice.count))
            integer(UInt64(slice.offset))
        }
    }

    fileprivate mutating func greeting(_ greeting: EngineGreeting) {
        let hello = greeting.hello
        integer(greeting.versions.lowerBound)
        integer(greeting.versions.upperBound)
        integer(UInt32(Ownership.allCases.firstIndex(of: hello.ownership) ?? 0))
        integer(UInt32(hello.blockTokens))
        integer(UInt32(0))
        integer(UInt64(hello.blockBytes))
        raw(greeting.digest)
        text(hello.kind, bytesMax: 64)
        text(greeting.client)
        text(hello.storeNamespace)
        integer(UInt16(hello.namespace.count))
        for (name, value) in hello.namespace.sorted(by: { $0.key < $1.key }) {
            text(name)
            text(value, bytesMax: EngineProtocol.valueBytesMax)
        }
    }

    fileprivate mutating func welcome(_ welcome: EngineWelcome) {
        integer(welcome.version)
        integer(UInt16(0))
        integer(UInt32(welcome.engine))
        integer(welcome.agent)
        integer(welcome.jobsMax)
        integer(welcome.requestsMax)
        integer(welcome.keysMax)
        integer(welcome.slicesMax)
        integer(welcome.bodyBytesMax)
        integer(welcome.regionsMax)
        integer(UInt64(0))
        text(welcome.program)
    }
}
