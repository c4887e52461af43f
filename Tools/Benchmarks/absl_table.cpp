// Two references of the block index behind plain functions. `absl_words`: absl::flat_hash_map from keys of 128 bits to words of 64,
// which has no numbers. `absl_blocks`: the same content as the block index, the map from keys to dense numbers and an array of
// keys and words by number. Tools/bench builds it as a library where absl is installed, and the benchmarks open that at run
// time. Loops are here, so that absl is compiled into them.

#include <absl/container/flat_hash_map.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

struct Key {
    std::uint64_t high, low;
    bool operator==(const Key &other) const { return high == other.high && low == other.low; }
};

// Keys are parts of a SHA-256: any of their bits are a hash, and none costs absl less.
struct KeyHash {
    std::size_t operator()(const Key &key) const { return key.low; }
};

// Bytes of a map's arrays: slots, and a control byte each with the copies behind them.
template <class Map>
std::uint64_t map_bytes(const Map &map) {
    return map.capacity() * (sizeof(typename Map::value_type) + 1) + 16;
}

// Keys to words.
struct Words {
    using Map = absl::flat_hash_map<Key, std::uint64_t, KeyHash>;
    Map map;

    std::uint64_t bytes() const { return map_bytes(map); }
    void insert(const Key &key, std::uint64_t word) { map.try_emplace(key, word); }
    std::uint64_t word(std::uint64_t value) const { return value; }
    void will_use(std::uint64_t) const {}
};

// Keys to numbers, and by number a key and a word.
struct Blocks {
    using Map = absl::flat_hash_map<Key, std::uint32_t, KeyHash>;
    struct Record {
        Key key;
        std::uint64_t word;
    };
    Map map;
    std::vector<Record> records;

    std::uint64_t bytes() const { return map_bytes(map) + records.capacity() * sizeof(Record); }
    void insert(const Key &key, std::uint64_t word) {
        if (map.try_emplace(key, static_cast<std::uint32_t>(records.size())).second) records.push_back({key, word});
    }
    std::uint64_t word(std::uint64_t value) const { return records[value].word; }
    void will_use(std::uint64_t value) const { __builtin_prefetch(&records[value]); }
};

// How far ahead a chain's groups are asked for: more gained nothing.
constexpr std::size_t ahead = 8;

template <class Table>
void insert(Table &table, const Key *keys, std::size_t count, std::uint64_t first) {
    for (std::size_t i = 0; i < count; i++) table.insert(keys[i], first + i);
}

template <class Table>
std::uint64_t find(const Table &table, const Key *keys, std::size_t count) {
    std::uint64_t found = 0, last = 0;
    for (std::size_t i = 0; i < count; i++) {
        auto entry = table.map.find(keys[i + (last >> 63)]);
        last = 0;
        if (entry != table.map.end()) last = table.word(entry->second), found++;
    }
    return found;
}

// What the map says first, then the words behind it, whose memory was asked for.
template <class Table>
std::size_t longest_run(const Table &table, const Key *keys, std::size_t count, std::uint64_t *words) {
    std::size_t known = 0;
    for (std::size_t i = 0; i < count && i < ahead; i++) table.map.prefetch(keys[i]);
    for (; known < count; known++) {
        if (known + ahead < count) table.map.prefetch(keys[known + ahead]);
        auto entry = table.map.find(keys[known]);
        if (entry == table.map.end()) break;
        words[known] = entry->second;
        table.will_use(entry->second);
    }
    for (std::size_t i = 0; i < known; i++) words[i] = table.word(words[i]);
    return known;
}

}  // namespace

// insert: the words are `first`, `first` + 1, … find: each look-up waits for the word of the one before it, whose top bit is never
// set; how many were found. longest_run: how many leading keys are there; their words are written to `words`.
#define TABLE(name, Table)                                                                                              \
    void *name##_create() { return new Table; }                                                                         \
    void name##_destroy(Table *table) { delete table; }                                                                 \
    std::uint64_t name##_bytes(const Table *table) { return table->bytes(); }                                           \
    void name##_insert(Table *table, const Key *keys, std::size_t count, std::uint64_t first) {                         \
        insert(*table, keys, count, first);                                                                             \
    }                                                                                                                   \
    std::uint64_t name##_find(const Table *table, const Key *keys, std::size_t count) {                                 \
        return find(*table, keys, count);                                                                               \
    }                                                                                                                   \
    std::size_t name##_longest_run(const Table *table, const Key *keys, std::size_t count, std::uint64_t *words) {      \
        return longest_run(*table, keys, count, words);                                                                 \
    }

extern "C" {
TABLE(absl_words, Words)
TABLE(absl_blocks, Blocks)
}
