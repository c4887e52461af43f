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
    // Scenario and catalogue files.
    .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
]

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

/// A Swift target of one floor, with the settings that hold for all of them.
func floor(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .target(name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
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
        // 1: the field's words as types.
        floor("KVModel", []),

        // 3: decisions, the serving model, traces, results. None of them knows another.
        floor("KVTiering", ["KVModel"]),
        // Its catalogue of models, GPUs and engines is embedded, so that the binary needs no file beside it.
        floor(
            "KVServing", ["KVModel", yams],
            resources: ["models", "gpus", "engines"].map { .embedInCode("Catalogue/\($0).yaml") }),
        floor("KVTrace", ["KVModel", crypto]),
        floor("KVReport", ["KVModel", crypto]),

        // 4: the simulated world and the replays.
        floor("KVSimulation", ["KVModel", "KVTiering", "KVServing", "KVTrace", "KVReport", yams, crypto]),

        // 6: the command, one file a verb.
        .executableTarget(
            name: "holdfast",
            dependencies: [
                "KVModel", "KVTiering", "KVServing", "KVTrace", "KVReport", "KVSimulation", argumentParser,
            ],
            swiftSettings: strict),

        // The benchmarks, one file each; `Tools/bench` runs them.
        .executableTarget(
            name: "holdfast-bench",
            dependencies: [
                "KVModel", "KVTiering", "KVServing", "KVTrace", "KVSimulation", argumentParser,
            ],
            path: "Tools/Benchmarks", exclude: ["libcachesim_lru.py"], swiftSettings: strict),

        tests("KVModel", []),
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
