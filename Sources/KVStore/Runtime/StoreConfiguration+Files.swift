// The files that a store keeps beside its drives: which of them are lost when the drives are not.

import Foundation
import KVFlash
import KVModel

extension StoreConfiguration {
    /// Whether one of the drives that are named is a store's already.
    public var hasOldDrives: Bool { data.contains { (try? FlashDevice.inspect(path: $0)) != nil } }

    /// The files that are looked for beside the first drive and are not there, though the drives are a store's already: its
    /// own lie beside what was its first drive. A file that is named is made where there is none.
    public var lostFiles: [(option: String, path: String)] {
        let files = [("--tenants", tenants, tenantsPath), ("--catalogue", catalogue, cataloguePath)]
        let missing = files.filter { $0.1.isEmpty && !FileManager.default.fileExists(atPath: $0.2) }
        return missing.isEmpty || !hasOldDrives ? [] : missing.map { ($0.0, $0.2) }
    }

    /// Throws where the files beside the drives are lost, or have no folder; before anything is made.
    public func checkFiles() throws(OperatorError) {
        let folder = URL(fileURLWithPath: cataloguePath).deletingLastPathComponent().path
        guard FileManager.default.fileExists(atPath: folder) else {
            throw OperatorError(
                "the folder is not there", at: cataloguePath, remedy: "make it, or choose another place")
        }
        let lost = lostFiles
        guard lost.isEmpty else {
            throw OperatorError(
                "there is no such file, and the drives are a store's already",
                at: lost.map(\.path).joined(separator: ", "),
                remedy: "name the store's own with \(lost.map(\.option).joined(separator: " and ")); what is named is "
                    + "made where it is missing")
        }
    }
}
