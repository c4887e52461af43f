// absl::flat_hash_map behind plain functions: keys of 128 bits to words of 64, as the block index keeps them. Tools/bench builds
// it as a library where absl is installed, and the benchmarks open that at run time. Loops are here, so that absl is compiled into
// them.

#include <absl/container/flat_hash_map.h>

#include <cstddef>
#include <cstdint>

namespace {

struct Key {
    std::uint64_t high, low;
    bool operator==(const Key &other) const { return high == other.high && low == other.low; }
};

// Keys are parts of a SHA-256: any of their bits are a hash, and none costs absl less.
struct KeyHash {
    std::size_t operator()(const Key &key) const { return key.low; }
};

using Table = absl::flat_hash_map<Key, std::uint64_t, KeyHash>;

// How far ahead a chain's groups are asked for: more gained nothing.
constexpr std::size_t ahead = 8;

}  // namespace

extern "C" {

void *absl_table_create() { return new Table; }

void absl_table_destroy(Table *table) { delete table; }

// Bytes of the arrays: slots, and a control byte each with the copies behind them.
std::uint64_t absl_table_bytes(const Table *table) { return table->capacity() * (sizeof(Table::value_type) + 1) + 16; }

// The words are `first`, `first` + 1, …
void absl_table_insert(Table *table, const Key *keys, std::size_t count, std::uint64_t first) {
    for (std::size_t i = 0; i < count; i++) table->try_emplace(keys[i], first + i);
}

// Each look-up waits for the word of the one before it, whose top bit is never set. Returns how many were found.
std::uint64_t absl_table_find(const Table *table, const Key *keys, std::size_t count) {
    std::uint64_t found = 0, last = 0;
    for (std::size_t i = 0; i < count; i++) {
        auto entry = table->find(keys[i + (last >> 63)]);
        last = 0;
        if (entry != table->end()) last = entry->second, found++;
    }
    return found;
}

// How many leading keys are there; their words are written to `words`.
std::size_t absl_table_longest_run(const Table *table, const Key *keys, std::size_t count, std::uint64_t *words) {
    for (std::size_t i = 0; i < count && i < ahead; i++) table->prefetch(keys[i]);
    for (std::size_t i = 0; i < count; i++) {
        if (i + ahead < count) table->prefetch(keys[i + ahead]);
        auto entry = table->find(keys[i]);
        if (entry == table->end()) return i;
        words[i] = entry->second;
    }
    return count;
}
}
