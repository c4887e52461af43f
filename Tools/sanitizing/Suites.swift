// Runs the suites that a campaign built without a package.

import Testing

@main struct Suites {
    static func main() async { await Testing.__swiftPMEntryPoint() as Never }
}
