// Which leases and reservations are in force, whose they are, and until when.

import KVModel
import KVTiering

/// The loans of all engines.
struct LoanTable {
    enum Purpose: Equatable {
        /// Blocks that a request's engine reads.
        case lease(RequestNumber)
        /// Slots that an engine writes into, by the decisions' name of the reservation. Nil: the decisions have not answered.
        case reservation(UInt32, slots: [SlotIndex]?)
    }

    struct Loan {
        var engine: EngineNumber
        var purpose: Purpose
        var expires: Instant
        /// Of a reservation that was not answered: the job, and the lifetime it asked for.
        var job: EngineTicket = 0
        var lifetime = Duration.zero
    }

    private(set) var loans: [Loan?] = []
    private var generations: [UInt64] = []
    private var free: [UInt32] = []
    private let countMax: Int
    private let perEngineMax: Int
    private(set) var count = 0
    private var counts: [EngineNumber: Int] = [:]
    private var nextReservation: UInt32 = 0
    private var reservations: [UInt32: UInt32] = [:]
    /// No loan expires before this.
    private(set) var nextExpiry = Instant.distantFuture
    /// Where engines see which are in force.
    var words: LoanWords?

    init(countMax: Int, perEngineMax: Int) {
        self.countMax = countMax
        self.perEngineMax = perEngineMax
    }

    func hasRoom(for engine: EngineNumber) -> Bool { count < countMax && counts[engine, default: 0] < perEngineMax }

    subscript(_ loan: EngineLoan) -> Loan? {
        get {
            let index = Int(loan.number)
            guard loans.indices.contains(index), generations[index] == loan.generation else { return nil }
            return loans[index]
        }
        set { loans[Int(loan.number)] = newValue }
    }

    mutating func open(_ loan: Loan) -> EngineLoan {
        precondition(hasRoom(for: loan.engine), "a loan for which there is no room")
        let number: UInt32
        if let last = free.popLast() {
            number = last
        } else {
            number = UInt32(loans.count)
            loans.append(nil)
            generations.append(1)
            words?[number] = 1
        }
        loans[Int(number)] = loan
        count += 1
        counts[loan.engine, default: 0] += 1
        nextExpiry = min(nextExpiry, loan.expires)
        return EngineLoan(number: number, generation: generations[Int(number)])
    }

    /// Ends a loan: from here on its engine can see it.
    mutating func close(_ loan: EngineLoan) -> Loan? {
        guard let closed = self[loan] else { return nil }
        generations[Int(loan.number)] += 1
        words?[loan.number] = generations[Int(loan.number)]
        loans[Int(loan.number)] = nil
        free.append(loan.number)
        count -= 1
        counts[closed.engine]? -= 1
        if counts[closed.engine] == 0 { counts[closed.engine] = nil }
        if case .reservation(let reservation, _) = closed.purpose { reservations[reservation] = nil }
        return closed
    }

    /// A reservation that waits for the decisions.
    mutating func openReservation(_ engine: EngineNumber, _ reserve: EngineReserve) -> UInt32 {
        while reservations[nextReservation] != nil { nextReservation &+= 1 }
        let reservation = nextReservation
        nextReservation &+= 1
        let loan = open(
            Loan(
                engine: engine, purpose: .reservation(reservation, slots: nil), expires: .distantFuture,
                job: reserve.job, lifetime: reserve.lifetime))
        reservations[reservation] = loan.number
        return reservation
    }

    /// The loan of a reservation.
    func loan(of reservation: UInt32) -> EngineLoan? {
        guard let number = reservations[reservation] else { return nil }
        return EngineLoan(number: number, generation: generations[Int(number)])
    }

    /// The engine holds the slots until `expires`.
    mutating func grant(_ loan: EngineLoan, _ slots: [SlotIndex], until expires: Instant) {
        guard case .reservation(let reservation, _) = self[loan]?.purpose else { return }
        loans[Int(loan.number)]?.purpose = .reservation(reservation, slots: slots)
        loans[Int(loan.number)]?.expires = expires
        nextExpiry = min(nextExpiry, expires)
    }

    /// Loans that a rule picks, in the order of their numbers.
    func all(where isWanted: (Loan) -> Bool) -> [EngineLoan] {
        loans.indices.compactMap { index in
            guard let loan = loans[index], isWanted(loan) else { return nil }
            return EngineLoan(number: UInt32(index), generation: generations[index])
        }
    }

    /// Those whose time is over.
    mutating func expired(at now: Instant) -> [EngineLoan] {
        guard nextExpiry <= now else { return [] }
        let expired = all { $0.expires <= now }
        nextExpiry = loans.reduce(.distantFuture) { next, loan in
            guard let loan, loan.expires > now else { return next }
            return min(next, loan.expires)
        }
        return expired
    }
}

/// What was handed over without a copy, counted.
public struct HandOverCounters: Sendable, Codable, Equatable {
    /// Blocks that engines were lent to read where they lie, and their bytes.
    public internal(set) var blocksLent = 0
    /// See `blocksLent`.
    public internal(set) var bytesLent = 0
    /// Of those: compared with their checksums first.
    public internal(set) var blocksVerified = 0
    /// Blocks that engines wrote where they lie, and their bytes.
    public internal(set) var blocksAdopted = 0
    /// See `blocksAdopted`.
    public internal(set) var bytesAdopted = 0
    /// Blocks that proved damaged when they were to be handed over.
    public internal(set) var blocksDamaged = 0
    /// Leases and reservations that were granted.
    public internal(set) var loans = 0
    /// Of those: that came back because their time was over, and because their engine was gone.
    public internal(set) var loansExpired = 0
    /// See `loansExpired`.
    public internal(set) var loansOrphaned = 0
    /// Words of engines about loans that were over already: commits and releases.
    public internal(set) var staleWords = 0
    /// Takes and reservations for which the table of loans had no room.
    public internal(set) var loansRefused = 0

    /// Nothing happened yet.
    public init() {}

    /// Every count with its name, for metrics.
    static let fields: [(name: String, path: any KeyPath<HandOverCounters, Int> & Sendable)] = [
        ("blocks_lent_total", \.blocksLent), ("bytes_lent_total", \.bytesLent),
        ("blocks_verified_total", \.blocksVerified), ("blocks_adopted_total", \.blocksAdopted),
        ("bytes_adopted_total", \.bytesAdopted), ("blocks_damaged_total", \.blocksDamaged),
        ("loans_total", \.loans), ("loans_expired_total", \.loansExpired),
        ("loans_orphaned_total", \.loansOrphaned), ("stale_words_total", \.staleWords),
        ("loans_refused_total", \.loansRefused),
    ]
}
