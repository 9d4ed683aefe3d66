import KVCodec
import Testing

@Suite struct ProfileTests {
    @Test func namesAndNumbersAreUnique() throws {
        #expect(Set(Profile.all.map(\.name)).count == Profile.all.count)
        #expect(Set(Profile.all.map(\.id)).count == Profile.all.count)
        for profile in Profile.all {
            #expect(try Profile.named(profile.name) == profile)
            #expect(Profile.numbered(profile.id) == profile)
        }
        #expect(Profile.numbered(9999) == nil)
    }

    @Test func numbersNeverChange() {
        let numbers = Dictionary(uniqueKeysWithValues: Profile.all.map { ($0.name, $0.id) })
        #expect(
            numbers == [
                "exact": 1, "int8": 2, "int4": 3, "kivi-2": 4, "vidkv-2-2": 16, "vidkv-1.5-2": 17, "vidkv-1.25-2": 18,
                "vidkv-2-1.58": 19, "vidkv-1.75-1.66": 20, "vidkv-1.5-1.66": 21, "vidkv-1.5-1.58": 22, "vidkv-1.25-1.58": 23,
                "vidkv-1-1": 24,
            ])
    }

    @Test func anUnknownNameListsTheKnown() {
        let error = #expect(throws: CodecError.self) { try Profile.named("vidkv-9-9") }
        #expect(error?.code == .unknownProfile)
        for profile in Profile.all { #expect(error?.message.contains(profile.name) == true) }
    }
}
