// The default scenario, inside the binary. The file `Traces/scenarios/default.yaml` is the same text, to be read and
// copied; a test compares the two.

extension Scenario {
    /// The default scenario as YAML, every key with its default and a comment.
    public static let defaultText = #"""
        # The scenario of a bare `holdfast replay FILE`: eight H100 in one node serve Llama-3.1-70B, with one shared
        # flash store. Every key that a scenario can have stands here, with its default. Another scenario states only what
        # differs; `--set tiers.dram.perNode=2TB` overrides one key of any scenario.
        # Numbers take units: bytes (GB, TB, GiB …), rates (GB/s, Gb/s), times (us, ms, s, min, h). Without a unit they are
        # bytes, bytes a second, or seconds.

        name: default
        seed: 42                    # decides every random draw: same trace, scenario and seed, same record

        model:
          name: Llama-3.1-70B       # a name of the model catalogue
          weights: fp8              # bf16, fp8 or fp4
          kv: fp8                   # bf16 or fp8

        gpu:
          name: H100                # a name of the GPU catalogue
          perNode: 8                # GPUs that share one host: its DRAM, its drives, its NICs

        replicas: 4                 # copies of the model that serve requests
        tensorParallel: 2           # GPUs of one copy

        # Who owns HBM and the host tier. `host`: the engine evicts from HBM by its LRU, the DRAM tier is ours, blocks are
        # handed over without a second copy. `engine`: the engine also owns a host region of its own, evicts there by its LRU,
        # and our DRAM lies below it.
        ownership: host

        engine:
          name: vllm                # an engine of the catalogue
          tokenBudget: 8192         # tokens of one iteration, prefill chunks and decodes together
          maxSequences: 256         # requests that run at the same time on a replica
          memoryShare: 0.90         # share of HBM the engine takes
          prefixCaching: true       # keep KV of ended requests in HBM until its memory is needed
          preemption: recompute     # recompute or swap: what happens to a running request when no KV block is free
          overlap: prefetch         # none, layerwise or prefetch: how loading overlaps with computing
          hostRegion: 100 GB        # engine-owned only: bytes of the engine's own host tier, per replica
          requestOverhead: 0 ms     # HTTP, tokenizer and hand-off, added to each TTFT: 0 is GPU-side, 40 ms client-side

        arrivals:
          mode: open                # open: the trace's times; sessions: a turn comes a think time after the one before ended
          thinkTime: 30 s           # sessions mode: mean think time where the trace does not say; drawn exponentially
          load: 1                   # sessions of the trace are multiplied (with fresh content) or thinned to this

        tiers:
          policy: holdfast          # eviction and admission of a node's tiers: holdfast, lru, fifo, lfu, s3fifo, sieve, arc
          inclusion: keep           # keep, inclusive or exclusive: whether a block brought up stays below
          dram:
            use: true
            perNode: 1 TB           # bytes of KV a node keeps in memory
            latency: 15 us          # first byte
          nvme:                     # flash of the node; baseline D uses these sizes also when `use` is false
            use: false
            perNode: 15 TB
            read: 28 GB/s           # all drives of the node: four PCIe 4.0 drives of 7 GB/s
            write: 20 GB/s
            latency: 100 us
          flash:                    # the shared store
            use: true
            policy: ranked          # ranked: as `holdfast store` ranks; or any policy of the nodes
            servers: 1
            perServer: 60 TB
            read: 168 GB/s          # all drives of a server: 24 PCIe 4.0 drives of 7 GB/s
            write: 96 GB/s
            nic: 100 GB/s           # each way, per server: 2 x 400 GbE
            latency: 150 us
            stripe: 1               # servers over which one request's blocks are spread
          writesPerDay: 0           # drive writes a day that flash may take, 0 is no limit

        links:
          discipline: fair          # fair: processor sharing at block grain; fifo: one transfer after another
          efficiency: 0.85          # share of each line rate that transfers reach
          hostNIC: 50 GB/s          # each way, per node: 400 GbE
          hostMemory: 300 GB/s      # per node: copies in and out of DRAM, both ways together
          hostToGPU: 0              # per GPU, each way, as reached; 0 takes the GPU catalogue's figure

        router:
          policy: cacheAware        # random, roundRobin, leastLoaded, sticky, cacheAware or stateless
          staleness: 0 s            # how old the router's knowledge of loads is

        planner:
          policy: threshold         # always: load every hit; threshold: load if that beats computing;
                                    # boundary: load up to the cheapest tier boundary; split: compute the front while
                                    # the back loads, which vLLM and SGLang cannot
          gpuWeight: 0              # seconds of TTFT that one GPU-second is worth

        prefetch:
          use: true
          budget: 0.25              # share of the read rate below DRAM that prefetch may take

        slo:
          name: interactive
          ttft: 2 s
          tpot: 50 ms
          share: 0.9                # share of requests that must meet both, where a cluster is sized by the SLO

        prices:                     # USD
          gpuHour: 3.00             # H100 on demand, median of public lists, spring 2026
          storeHour: 5.00           # per server: 24 drives, 2 x 400 GbE, amortised over four years (assumption)
          switchHour: 0.50          # share of the switches that the store needs, per server (assumption)
          nvmeHour: 0.01            # per TB of local drives, amortised (assumption)
          dramHour: 0               # per TB; the node's DRAM comes with the GPUs

        energy:                     # shares of the GPU's TDP, and joules for moving bytes (assumptions)
          gpu: 0                    # watts a GPU draws at most, 0 takes the catalogue's figure
          prefill: 0.95
          decode: 0.65
          idle: 0.13
          drive: 2                  # J/GB
          nic: 1                    # J/GB, each
          store: 5                  # J/GB, a store server's share

        warmUp: 0.1                 # share of requests left out of the figures named "after warm-up"

        sweep:
          use: true
          loads: [0.25, 0.5, 0.75, 1, 1.5, 2]
          replicas: [1, 2, 3, 4, 5, 6, 8, 12, 16, 24]   # cluster sizes tried for the SLO
          capacities: 9             # least points of the miss-ratio curve

        """#
}
