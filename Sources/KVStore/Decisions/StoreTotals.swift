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

    /// The counters with their names in the metrics' spelling, and what they count.
    public static var fields: [(name: String, help: String, path: KeyPath<StoreTotals, Int>)] {
        [
            ("lookup_keys_total", "Keys that look-ups asked for", \.lookUpKeys),
            ("lookup_hits_total", "Keys that look-ups found", \.lookUpHits),
            ("gets_total", "Requests for a payload", \.gets),
            ("get_hits_total", "Requests for a payload whose block was there", \.getHits),
            ("get_memory_hits_total", "Requests for a payload that memory answered", \.getHitsInMemory),
            ("get_bytes_total", "Bytes of payload sent", \.getBytes),
            ("puts_total", "Offers of a payload", \.puts),
            ("puts_stored_total", "Offers that were stored", \.putsStored),
            ("put_bytes_total", "Bytes of payload stored", \.putBytes),
            ("puts_present_total", "Offers of what was there already", \.putsPresent),
            ("puts_not_admitted_total", "Offers that were not worth their write", \.putsNotAdmitted),
            ("puts_over_budget_total", "Offers that a budget refused", \.putsOverBudget),
            ("puts_busy_total", "Offers that found no room in time", \.putsBusy),
            ("puts_failed_total", "Offers that a drive failed", \.putsFailed),
            ("puts_corrupt_total", "Offers whose payload failed its checksum", \.putsCorrupt),
            ("evicted_total", "Blocks that made room", \.evicted),
            ("expired_total", "Blocks whose retention had passed", \.expired),
            ("deleted_total", "Blocks that somebody deleted", \.deleted),
            ("erased_total", "Tombstones written", \.erased),
            ("damaged_found_total", "Payloads found wrong on a drive", \.damagedFound),
            ("quarantined_extents", "Extents out of use until the next start", \.quarantinedExtents),
            ("corrupt_reports_total", "Reports of clients that a payload was wrong", \.corruptReports),
            ("scrubbed_total", "Blocks that the scrubber verified", \.scrubbed),
            ("scrubbed_bytes_total", "Bytes that the scrubber verified", \.scrubbedBytes),
            ("drive_failures_total", "Drives that became read-only or were given up", \.driveFailures),
            ("catalogue_changes_total", "Changes of the catalogue", \.cataloguedChanges),
            ("catalogue_failures_total", "Changes of the catalogue that failed", \.catalogueFailures),
            ("sessions_opened_total", "Sessions opened", \.sessionsOpened),
            ("requests_refused_total", "Requests that their sender may not make", \.requestsRefused),
        ]
    }
}
