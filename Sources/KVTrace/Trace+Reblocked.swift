// The same trace in blocks of another size.

import KVModel

extension Trace {
    /// The trace with blocks of `size` tokens. Prefixes that the trace tells apart stay apart, and equal ones stay
    /// equal as far as its blocks show it: a larger block takes the id of the last old block in it, a smaller one
    /// lies within one old block.
    ///
    /// With `partialLast` every token of a prompt is in a block, as Mooncake has it: what no old block covers belongs
    /// to that prompt alone. Without, only full blocks are listed. Throws when neither size divides the other.
    public func reblocked(to size: Int, partialLast: Bool = false) throws(OperatorError) -> Trace {
        guard size > 0, blockTokens % size == 0 || size % blockTokens == 0 else {
            throw OperatorError(
                "blocks of \(blockTokens) tokens cannot become blocks of \(size): neither divides the other", at: name)
        }
        var result = self
        result.blockTokens = size
        result.blocks = []
        var interner = PathInterner()
        var ids: [UInt64] = []
        // Above every id that an old block gives.
        var fresh = UInt64(uniqueBlockCount) * UInt64(max(1, blockTokens / size))
        for index in requests.indices {
            let request = requests[index]
            ids.removeAll(keepingCapacity: true)
            appendIds(of: request, blockTokens: size, partialLast: partialLast, to: &ids)
            if partialLast {
                while ids.count * size < Int(request.inputTokens) {
                    ids.append(fresh)
                    fresh += 1
                }
            }
            result.requests[index].firstReference = result.blocks.count
            result.requests[index].blockCount = Int32(ids.count)
            do throws(LineProblem) {
                try interner.append(ids, to: &result.blocks)
            } catch {
                throw OperatorError("blocks cannot be regrouped: \(error.what)", at: name)
            }
        }
        result.uniqueBlockCount = interner.count
        return result
    }

    /// The ids of the new blocks that the old ones of the request determine.
    private func appendIds(of request: TraceRequest, blockTokens size: Int, partialLast: Bool, to ids: inout [UInt64]) {
        let path = path(of: request)
        let covered = min(Int(request.inputTokens), path.count * blockTokens)
        if blockTokens >= size {
            let parts = blockTokens / size
            for block in 0..<(partialLast ? (covered + size - 1) / size : covered / size) {
                ids.append(UInt64(path[path.startIndex + block / parts]) * UInt64(parts) + UInt64(block % parts))
            }
        } else {
            let parts = size / blockTokens
            for block in 0..<(covered / size) { ids.append(UInt64(path[path.startIndex + (block + 1) * parts - 1])) }
        }
    }
}
