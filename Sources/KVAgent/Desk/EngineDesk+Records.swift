// What the desk keeps of engines, of their requests and of their jobs.

import KVModel
import KVTiering

extension EngineDesk {
    /// An engine that is attached, or was.
    struct Engine {
        let number: EngineNumber
        var hello: EngineHello?
        var regions = EngineRegions([:])
        /// Open jobs that name a region.
        var regionUses: [Int32: Int] = [:]
        /// Regions whose end was asked for.
        var leaving: Set<Int32> = []
        /// Requests and jobs.
        var openCount = 0
        /// Keys and places that these hold.
        var openItems = 0
        var isSubscribed = false
        var isGone = false
    }

    /// What a request number of the decisions stands for.
    struct Record {
        enum Purpose { case unused, request, load, save, hint }

        var purpose = Purpose.unused
        var engine: EngineNumber = -1
        /// Names the request; of a load or save of its own, the job's.
        var ticket: EngineTicket = 0
        var names: [ObjectName] = []
        /// Keys and places that count as held here.
        var items = 0
        var session: UInt64 = 0
        var turn: Int32 = -1
        var evictionClass: UInt8 = 0
        var job: Job?
        /// Whether the decisions were given a load for it.
        var wasLoaded = false
        /// Whether its prompt is in the ledger.
        var isBooked = false
        /// Whether it looked a part of a prompt up, whose tokens another look-up carries: it is not in the ledger.
        var isPart = false
        /// Whether blocks of it were saved piece by piece.
        var wasSaved = false
        /// Whether a load with a number of its own belongs to it, and how many of those are open.
        var hasPieces = false
        /// See `hasPieces`.
        var openPieces = 0
        /// Whether its last event is on its way to the decisions, and whether they have had it.
        var isEnding = false
        var isEnded = false
        /// Whether its end is to be told: of a request that was cancelled.
        var owesCancelled = false
        /// Transfers of it that have not ended.
        var flights = 0
        /// Of those, out of or into its engine.
        var touching = 0
        /// Whether its engine has been told of its end.
        var isClosed = false
        /// Whether the decisions have answered its look-up.
        var isAnswered = false
        /// What its engine reads in place.
        var loan = EngineLoan.none
        /// Jobs with numbers of their own that belong to it.
        var children = 0
    }

    /// A load or a save.
    struct Job {
        enum Kind { case load, save, take }

        var kind: Kind
        var ticket: EngineTicket
        /// Position of the first block that has a place.
        var first: Int32
        var places: EnginePlaces
        var deadline: Instant
        /// Of a load: what the decisions say has come.
        var ready: Ready?
        /// Whether its engine, or its time, ended it.
        var isCancelled = false
        /// Whether `cancelled` is its reply.
        var owesCancelled = false
        /// The different regions of its places.
        var regions: [Int32]
        /// Blocks that it is about: those that have places, or of a hand-over those that have slots.
        var blockCount = 0
        /// The request that it belongs to, if that is another number.
        var parent: RequestNumber?
        /// Of a save: the blocks lie in slots already.
        var isAdoption = false
        /// Of a take: whether checksums are compared first, for how long it is, and what may be read so far.
        var isVerified = false
        /// See `isVerified`.
        var lifetime = Duration.zero
        /// See `isVerified`.
        var lent: [LeasedBlock?] = []
    }

    struct TicketName: Hashable {
        var engine: EngineNumber
        var ticket: EngineTicket
    }
}
