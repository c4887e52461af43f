// What each metric means, for the `# HELP` lines. A test holds every name on the page to be here.

extension AgentMetrics {
    /// Meanings by name, without prefix.
    static let meanings: [String: String] = {
        var all = Dictionary(uniqueKeysWithValues: gauges.map { ($0.name, $0.meaning) })
        for list in [door, engines, times, ledger] { all.merge(list) { first, _ in first } }
        for (name, meaning) in decided { all["decided_\(name)_total"] = meaning }
        for (path, words) in paths {
            all["decided_blocks_\(path)_total"] = "Blocks that came through \(words)"
            all["decided_bytes_\(path)_total"] = "Bytes that came through \(words)"
            all["decided_corrupt_\(path)_total"] = "Blocks found damaged \(words)"
            all["decided_failed_\(path)_total"] = "Blocks that failed otherwise \(words)"
            all["decided_absent_\(path)_total"] = "Blocks that were not at their source \(words)"
            all["decided_refused_\(path)_total"] = "Blocks that the store did not take \(words)"
        }
        return all
    }()

    /// Meanings of what is handed over without a copy.
    static let handOverMeanings: [String: String] = {
        var all = Dictionary(uniqueKeysWithValues: handOverGauges.map { ($0.name, $0.meaning) })
        all.merge([
            "blocks_lent_total": "Blocks lent to engines for reading in place", "bytes_lent_total": "Bytes of them",
            "blocks_verified_total": "Blocks verified before they were lent",
            "blocks_adopted_total": "Blocks taken over from slots that engines filled",
            "bytes_adopted_total": "Bytes of them",
            "blocks_damaged_total": "Blocks found damaged before they were lent or taken over",
            "loans_total": "Leases and reservations given", "loans_expired_total": "Of those, ended by their time",
            "loans_orphaned_total": "Of those, ended because their engine was lost",
            "stale_words_total": "Releases of leases that were over",
            "loans_refused_total": "Leases and reservations refused",
        ]) { first, _ in first }
        return all
    }()

    private static let door: [String: String] = [
        "connections_total": "Connections taken at the door", "attached_total": "Engines attached since the start",
        "engines_lost_total": "Engines that left without a goodbye",
        "refused_total": "Connections ended by the agent, by the protocol's code",
        "changes_dropped_total": "Changes of what is there that a slow engine was not told",
        "regions_mapped_total": "Memory regions of engines mapped",
        "regions_unsealed_total": "Of those, in files that can shrink, which are watched",
        "regions_lost_total": "Regions whose engine cut their file short",
        "arenas_opened_total": "Times an engine was given node memory to map",
        "spans_exported_total": "Spans of request traces written or taken by the collector",
        "spans_dropped_total": "Spans of request traces that nobody will see",
    ]

    private static let engines: [String: String] = [
        "frames_total": "Frames that engines sent", "lookups_total": "Look-ups",
        "keys_looked_up_total": "Keys in look-ups", "blocks_found_total": "Leading blocks found for look-ups",
        "loads_total": "Loads", "loads_empty_total": "Loads that brought nothing",
        "blocks_loaded_total": "Blocks brought into engines", "bytes_loaded_total": "Bytes brought into engines",
        "saves_total": "Saves", "blocks_saved_total": "Blocks kept of what engines saved",
        "bytes_saved_total": "Bytes kept of what engines saved", "cancels_total": "Cancellations asked for",
        "busy_total": "Look-ups, loads and saves answered with nothing for want of room",
        "hints_dropped_total": "Hints dropped for want of room",
        "takes_total": "Takes: blocks wanted for reading in place",
        "takes_empty_total": "Takes that brought nothing", "blocks_taken_total": "Blocks lent for takes",
        "reserves_total": "Reservations asked for", "slots_reserved_total": "Slots given for reservations",
        "commits_total": "Commits of reserved slots", "finished_total": "Requests whose end an engine told",
        "cached_tokens_total": "Prompt tokens that engines did not compute, as they told it",
        "answer_tokens_total": "Tokens of answers, as engines told it",
    ]

    private static let times: [String: String] = [
        "lookup_seconds": "From a look-up's arrival to its answer", "load_seconds": "From a load's arrival to its end",
        "save_seconds": "From a save's arrival to its end", "take_seconds": "From a take's arrival to its hand-over",
        "first_token_seconds": "From a request's arrival to its first token, as engines told it",
    ]

    private static let ledger: [String: String] = [
        "hit_tokens_total": "Prompt tokens served, by tier",
        "prompt_tokens_total": "Prompt tokens of requests that ended their look-up",
        "ledger_tokens_total":
            "Prompt tokens by where they came from or why they were computed; adds up to prompt_tokens_total",
        "prefetch_blocks": "Blocks brought up before they were asked for, by reason and account",
    ]

    private static let decided: [String: String] = [
        "requests": "Requests decided", "requests_refused": "Requests for which there was no room",
        "chains_cut": "Chains cut at the length that is allowed",
        "commands_refused": "Effects for which there was no room",
        "transfers_dropped": "Transfers given up before they began", "dram_evictions": "Blocks that left node memory",
        "nvme_evictions": "Blocks that left local flash", "hbm_evictions": "Blocks that left the agent's HBM slots",
        "hbm_writes": "Blocks written to HBM slots", "saves_dropped": "Saved blocks that were not kept",
        "demotions_dropped": "Blocks that left node memory without going to local flash",
        "spills_dropped": "Blocks not offered to the store", "loads_cut_short": "Loads given less than was planned",
        "loads_late": "Loads that ended at their deadline", "blocks_corrupt": "Blocks found damaged, and not served",
        "blocks_lost": "Blocks that were gone when they were loaded", "store_questions": "Questions to the store",
        "store_questions_late": "Questions that the store answered too late",
        "dram_writes": "Blocks written to node memory",
        "nvme_writes": "Blocks written to local flash", "nvme_reads": "Blocks read from local flash",
        "flash_writes": "Blocks put into the store", "flash_reads": "Blocks got from the store",
        "look_ups": "Look-ups that reached the decisions", "loads": "Loads that reached the decisions",
        "saves": "Saves that reached the decisions", "finished": "Ends of requests that reached the decisions",
        "cancels": "Cancellations that reached the decisions", "hints": "Hints that reached the decisions",
        "blocks_loaded": "Blocks given to engines", "blocks_offered": "Blocks offered by engines",
        "engine_refused": "Requests and jobs of engines for which there was no room",
        "engine_invalid": "Jobs whose places or names made no sense",
        "engine_loads_late": "Loads cut because their engine waited no longer",
        "slots_quarantined": "Slots that a failed path kept for a while",
        "names_missing": "Keys whose full name was not known any more", "store_lost": "Times the store was lost",
        "stream_broken": "Times the store's stream of changes broke", "journal_bytes": "Bytes of the journal",
    ]

    private static let paths = [
        ("out_of_engine", "from engines into node memory"), ("into_engine", "from node memory into engines"),
        ("flash_read", "from local flash"), ("flash_write", "to local flash"), ("store_get", "from the store"),
        ("store_put", "to the store"),
    ]
}
