// swift-tools-version: 6.2
// The floors of Holdfast. A target may import only the targets and products listed with it here;
// Tools build with `--explicit-target-dependency-import-check error`, so an undeclared import fails the build.
import PackageDescription

// Exact versions only: Package.resolved is not kept, and a replay must be built from known code.
let dependencies: [Package.Dependency] = [
    // The command line: parsing, help pages and shell completions.
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    // SHA-256 for trace, scenario and record digests.
    .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
    // Scenario, catalogue and configuration files.
    .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
    // Structured logs of the long-running verbs.
    .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    // TLS 1.3 for the transport, a slower path beside the raw sockets.
    .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", exact: "2.37.6"),
    // /metrics, /healthz, /readyz.
    .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1"),
    // Start, signals and graceful shutdown of the long-running verbs.
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
    // Request traces to an OpenTelemetry collector.
    .package(url: "https://github.com/swift-server/async-http-client", exact: "1.37.0"),
    // The store's catalogue in SQLite: namespaces, pins, leases.
    .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
]

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nio = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let httpClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

/// A Swift target of one floor, with the settings that hold for all of them.
func floor(
    _ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = [], settings: [SwiftSetting] = []
) -> Target {
    .target(name: name, dependencies: dependencies, resources: resources, swiftSettings: strict + settings)
}

/// A narrow C target over one foreign library: its public header shows fixed-width integers and opaque handles only.
func door(_ name: String, _ libraries: [String] = []) -> Target {
    .target(
        name: name, cSettings: [.define("_GNU_SOURCE"), .unsafeFlags(["-Wall", "-Wextra", "-Werror"])],
        linkerSettings: libraries.map { .linkedLibrary($0) })
}

/// The tests of one target.
func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: [.byName(name: name)] + dependencies, resources: resources,
        swiftSettings: strict)
}

let package = Package(
    name: "holdfast",
    products: [.executable(name: "holdfast", targets: ["holdfast"])],
    dependencies: dependencies,
    targets: [
        // 0: doors to C. CChecksum opens ISA-L at run time and has a portable twin.
        door("CKernel"),
        door("CProcessor"),
        door("CURing", ["uring"]),
        door("CChecksum"),
        door("CVerbs", ["ibverbs"]),
        door("CNuma", ["numa"]),
        // Opens NVIDIA's driver at run time; nothing of it is needed to build.
        door("CCuda"),

        // 1: the field's words as types; threads, mailboxes, clock, page memory and checksums for the engines.
        floor("KVModel", []),
        floor("KVIdentity", ["KVModel", crypto]),
        floor("KVSystem", ["KVModel", "CKernel", "CChecksum"]),
        // Settings of services, by their names, from YAML and from options.
        floor("KVSettings", ["KVModel", yams]),

        // 2: engines. None of them knows another, nor any decision.
        floor("KVFlash", ["KVModel", "KVSystem", "CKernel", "CURing"]),
        floor(
            "KVTransport",
            ["KVModel", "KVSettings", "KVSystem", "CKernel", "CVerbs", crypto, nio, nioPosix, nioTLS, nioSSL]),
        floor("KVMemory", ["KVModel", "KVSystem", "CKernel", "CNuma", "CCuda"]),

        // 3: decisions, the serving model, traces, results. None of them knows another.
        floor("KVTiering", ["KVModel", "CProcessor"]),
        // Its catalogue of models, GPUs and engines is embedded, so that the binary needs no file beside it.
        floor(
            "KVServing", ["KVModel", yams],
            resources: ["models", "gpus", "engines"].map { .embedInCode("Catalogue/\($0).yaml") }),
        floor("KVTrace", ["KVModel", crypto]),
        floor("KVReport", ["KVModel", crypto]),

        // 4: the simulated world and the replays; what agent and store have alike over HTTP.
        // Its run is one object that one thread owns; checking at run time that nobody else writes it costs a tenth of a
        // replay. What the compiler can prove it still checks.
        floor(
            "KVSimulation", ["KVModel", "KVTiering", "KVServing", "KVTrace", "KVReport", yams, crypto],
            settings: [.unsafeFlags(["-enforce-exclusivity=unchecked"])]),

        // Probes and metrics of services over HTTP.
        floor("KVHTTP", ["KVModel", "KVTransport", hummingbird, lifecycle, logging]),

        // 5: decisions married to engines.
        floor(
            "KVStore",
            [
                "KVModel", "KVHTTP", "KVSettings", "KVSystem", "KVTiering", "KVFlash", "KVTransport", "KVMemory",
                crypto, grdb, hummingbird, lifecycle, logging, yams,
            ]),

        floor(
            "KVAgent",
            [
                "KVModel", "KVHTTP", "KVIdentity", "KVSettings", "KVSystem", "KVTiering", "KVFlash", "KVTransport",
                "KVMemory", crypto, httpClient, hummingbird, lifecycle, logging, nio,
            ]),

        // 6: the command, one file a verb.
        .executableTarget(
            name: "holdfast",
            dependencies: [
                "KVModel", "KVSystem", "KVTiering", "KVServing", "KVTrace", "KVReport", "KVSimulation", "KVFlash",
                "KVTransport", "KVMemory", "KVStore", "KVAgent", "KVIdentity", "KVSettings", argumentParser, crypto,
                lifecycle, logging, yams,
            ],
            swiftSettings: strict),

        // Stands in for the allocator in the benchmarks' program, and counts.
        .target(
            name: "CAllocationCount", path: "Tools/AllocationCount",
            cSettings: [.define("_GNU_SOURCE"), .unsafeFlags(["-Wall", "-Wextra", "-Werror"])]),
        // The benchmarks, one file each; `Tools/bench` runs them.
        .executableTarget(
            name: "holdfast-bench",
            dependencies: [
                "KVModel", "KVSystem", "KVTiering", "KVServing", "KVTrace", "KVSimulation", "KVFlash", "KVTransport",
                "KVMemory", "KVStore", "KVAgent", "KVIdentity", "CKernel", "CAllocationCount", argumentParser, logging,
            ],
            path: "Tools/Benchmarks",
            exclude: ["absl_table.cpp", "libcachesim_lru.py", "mooncake_peer.py", "peer_faults.py"],
            swiftSettings: strict),

        // The campaigns: crashes, corruption, power cuts, soak; `Tools/campaign` runs them.
        .executableTarget(
            name: "holdfast-campaign",
            dependencies: [
                "KVModel", "KVSystem", "KVTiering", "KVServing", "KVSimulation", "KVFlash", "KVTransport", "KVMemory",
                "KVStore", "KVAgent", "CKernel", argumentParser, logging,
            ],
            path: "Tools/Campaigns", swiftSettings: strict),

        tests("KVModel", []),
        tests("KVIdentity", ["KVModel"], resources: [.embedInCode("identity-vectors.json")]),
        tests("KVSystem", ["KVModel", "CKernel", "CChecksum"]),
        tests("KVFlash", ["KVModel", "KVSystem"]),
        tests("KVTransport", ["KVModel", "KVSettings", "KVSystem"], resources: [.embedInCode("frame-vectors.json")]),
        tests("KVMemory", ["KVModel", "KVSystem"]),
        tests(
            "KVStore",
            ["KVModel", "KVSettings", "KVSystem", "KVTiering", "KVFlash", "KVTransport", "KVMemory", grdb, logging]),
        tests(
            "KVAgent",
            [
                "KVModel", "KVIdentity", "KVSettings", "KVSystem", "KVTiering", "KVFlash", "KVTransport", "KVMemory",
                "KVStore", "KVTrace", "KVReport", "KVServing", "KVSimulation", "CKernel", logging,
            ], resources: [.embedInCode("engine-protocol-vectors.json")]),
        tests("KVTiering", ["KVModel"]),
        tests("KVServing", ["KVModel"], resources: [.embedInCode("known-points.json")]),
        tests("KVTrace", ["KVModel"]),
        tests("KVReport", ["KVModel"]),
        tests("KVSimulation", ["KVModel", "KVTiering", "KVServing", "KVTrace", "KVReport"]),
        // The command as its users meet it, and the maps of the repository.
        .testTarget(name: "HoldfastTests", dependencies: ["holdfast"], swiftSettings: strict),
        .testTarget(name: "TidyTests", swiftSettings: strict),
    ]
)
