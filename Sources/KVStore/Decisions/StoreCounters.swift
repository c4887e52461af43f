// What the store did, counted: the source of its metrics and of `ctl status`.

/// Counts since the start.
public struct StoreTotals: Sendable, Equatable {
    /// Keys that look-ups asked for.
    public internal(set) var lookUpKeys = 0
    /// Of those, found.
    public internal(set) var lookUpHits = 0
    /// Requests for a payload.
    public internal(set) var gets = 0
    /// Of those, found.
    public internal(set) var getHits = 0
    /// Of those, served from memory.
    public internal(set) var getHitsInMemory = 0
    /// Bytes of payload sent.
    public internal(set) var getBytes = 0
    /// Offers of a payload.
    public internal(set) var puts = 0
    /// Of those, stored.
    public internal(set) var putsStored = 0
    /// Their bytes.
    public internal(set) var putBytes = 0
    /// Offers of what was there already.
    public internal(set) var putsPresent = 0
    /// Offers that were not worth their write.
    public internal(set) var putsNotAdmitted = 0
    /// Offers that a budget refused.
    public internal(set) var putsOverBudget = 0
    /// Offers that found no room in time.
    public internal(set) var putsBusy = 0
    /// Offers that a drive failed.
    public internal(set) var putsFailed = 0
    /// Offers whose payload failed its checksum.
    public internal(set) var putsCorrupt = 0
    /// Blocks that made room.
    public internal(set) var evicted = 0
    /// Blocks whose retention had passed.
    public internal(set) var expired = 0
    /// Blocks that somebody deleted.
    public internal(set) var deleted = 0
    /// Tombstones written.
    public internal(set) var erased = 0
    /// Payloads found wrong on a drive.
    public internal(set) var damagedFound = 0
    /// Extents out of use until the next start.
    public internal(set) var quarantinedExtents = 0
    /// Reports of clients that a payload was wrong.
    public internal(set) var corruptReports = 0
    /// Blocks that the scrubber verified.
    public internal(set) var scrubbed = 0
    /// Their bytes.
    public internal(set) var scrubbedBytes = 0
    /// Drives that became read-only or were given up.
    public internal(set) var driveFailures = 0
    /// Changes of the catalogue.
    public internal(set) var cataloguedChanges = 0
    /// Of those, failed.
    public internal(set) var catalogueFailures = 0
    /// Sessions opened.
    public internal(set) var sessionsOpened = 0
    /// Requests that their sender may not make.
    public internal(set) var requestsRefused = 0

    /// The names of the counters, in the metrics' spelling.
    public static var fields: [(name: String, path: KeyPath<StoreTotals, Int>)] {
        [
            ("lookup_keys_total", \.lookUpKeys), ("lookup_hits_total", \.lookUpHits), ("gets_total", \.gets),
            ("get_hits_total", \.getHits), ("get_memory_hits_total", \.getHitsInMemory),
            ("get_bytes_total", \.getBytes), ("puts_total", \.puts), ("puts_stored_total", \.putsStored),
            ("put_bytes_total", \.putBytes), ("puts_present_total", \.putsPresent),
            ("puts_not_admitted_total", \.putsNotAdmitted), ("puts_over_budget_total", \.putsOverBudget),
            ("puts_busy_total", \.putsBusy), ("puts_failed_total", \.putsFailed),
            ("puts_corrupt_total", \.putsCorrupt), ("evicted_total", \.evicted), ("expired_total", \.expired),
            ("deleted_total", \.deleted), ("erased_total", \.erased), ("damaged_found_total", \.damagedFound),
            ("quarantined_extents", \.quarantinedExtents), ("corrupt_reports_total", \.corruptReports),
            ("scrubbed_total", \.scrubbed), ("scrubbed_bytes_total", \.scrubbedBytes),
            ("drive_failures_total", \.driveFailures), ("catalogue_changes_total", \.cataloguedChanges),
            ("catalogue_failures_total", \.catalogueFailures), ("sessions_opened_total", \.sessionsOpened),
            ("requests_refused_total", \.requestsRefused),
        ]
    }
}
