@main struct Campaign { static func main() {} }
