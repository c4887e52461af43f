// Small random traces: prompts that continue or branch off earlier ones, as conversations do.

import KVModel

/// Paths of random requests over a prefix tree; block numbers are dense and in order of first appearance.
func randomPaths(requests: Int, longest: Int, source: inout RandomSource) -> [[BlockNumber]] {
    var paths: [[BlockNumber]] = []
    var next: BlockNumber = 0
    for _ in 0..<requests {
        var path: [BlockNumber] = []
        if !paths.isEmpty, source.below(5) != 0 {
            // Mostly a recent prompt, cut anywhere: a continuation, a repetition or a branch.
            let back = min(paths.count, 1 + source.below(source.below(3) == 0 ? paths.count : 6))
            let earlier = paths[paths.count - back]
            path = Array(earlier.prefix(source.below(earlier.count + 1)))
        }
        let fresh = source.below(max(1, longest - path.count + 1))
        for _ in 0..<min(fresh, 1 + source.below(6)) {
            path.append(next)
            next += 1
        }
        paths.append(path)
    }
    return paths
}
