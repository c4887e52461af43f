// The same trace in blocks of another size.

import KVModel

extension Trace {
    /// The trace with blocks of `size` tokens. Prefixes that the trace tells apart stay apart, and equal ones stay
    /// equal as far as its blocks show it: a larger block takes the id of the last old block in it, a smaller one
    /// lies within one old block. A prompt's last tokens that no old block covers belong to that prompt alone.
    ///
    /// Throws when neither size divides the other.
    public func reblocked(to size: Int) throws(OperatorError) -> Trace {
        if size == blockTokens { return self }
        guard size > 0, blockTokens % size == 0 || size % blockTokens == 0 else {
            throw OperatorError(
                "blocks of \(blockTokens) tokens cannot become blocks of \(size): neither divides the other")
        }
        var result = self
        result.blockTokens = size
        result.blocks = []
        var interner = PathInterner()
        var ids: [UInt64] = []
        var fresh = UInt64(uniqueBlockCount) &* UInt64(max(1, blockTokens / size))
        for index in requests.indices {
            ids.removeAll(keepingCapacity: true)
            let request = requests[index]
            let path = path(of: request)
            let input = Int(request.inputTokens)
            if blockTokens > size {
                let parts = blockTokens / size
                let covered = min(input, path.count * blockTokens)
                for block in 0..<(covered / size) {
                    ids.append(UInt64(path[path.startIndex + block / parts]) * UInt64(parts) + UInt64(block % parts))
                }
            } else {
                let parts = size / blockTokens
                let full = min(path.count, input / blockTokens) / parts
                for block in 0..<full { ids.append(UInt64(path[path.startIndex + (block + 1) * parts - 1])) }
                if full * size < input, full == input / size {
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
}
