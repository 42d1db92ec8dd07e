// Lookup or insert, gradient and Adagrad update of a batch, as fast as a plain loop
// can be: an open hash table, rows next to their state, and prefetches.
//
// The ids of a batch are split into one run per thread. The threads share nothing, so
// an id must not be in two runs: runs are cut between features.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace {

constexpr int kAhead = 12;
constexpr uint64_t kOdd = 0x9E3779B97F4A7C15u;

struct Entry {
  int64_t key;
  int64_t row;
};

struct Row {
  float weights[DIM];
  float state[DIM];
};

class Table {
 public:
  Table(int64_t rows, const float* initial, float rate, float accumulator)
      : initial_(initial), rate_(rate), accumulator_(accumulator) {
    int bits = 4;
    while ((int64_t{1} << bits) < 2 * rows) ++bits;
    shift_ = 64 - bits;
    mask_ = (uint64_t{1} << bits) - 1;
    entries_.assign(mask_ + 1, Entry{-1, 0});
    rows_.reserve(rows);
    place_.reserve(rows);
    seen_.reserve(rows);
  }

  // Looks up the rows of ids, and writes them to `found`.
  void LookUp(const int64_t* ids, int64_t count, float* found) {
    numbers_.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      if (i + kAhead < count) __builtin_prefetch(&entries_[Slot(ids[i + kAhead])]);
      numbers_[i] = Find(ids[i]);
      __builtin_prefetch(&rows_[numbers_[i]].weights);
    }
    for (int64_t i = 0; i < count; ++i) {
      if (i + kAhead < count) __builtin_prefetch(&rows_[numbers_[i + kAhead]].weights);
      std::memcpy(found + i * DIM, rows_[numbers_[i]].weights, sizeof(float) * DIM);
    }
  }

  // Updates the rows of the last lookup, each by its summed gradient.
  void Update(const float* gradients, int64_t count) {
    ++step_;
    touched_.clear();
    for (int64_t i = 0; i < count; ++i) {
      if (i + kAhead < count) __builtin_prefetch(&seen_[numbers_[i + kAhead]]);
      const int64_t row = numbers_[i];
      const float* gradient = gradients + i * DIM;
      if (seen_[row] != step_) {
        seen_[row] = step_;
        place_[row] = touched_.size();
        touched_.push_back(row);
        sums_.resize(std::max(sums_.size(), touched_.size() * DIM));
        std::memcpy(&sums_[place_[row] * DIM], gradient, sizeof(float) * DIM);
      } else {
        float* sum = &sums_[place_[row] * DIM];
        for (int d = 0; d < DIM; ++d) sum[d] += gradient[d];
      }
    }
    for (size_t i = 0; i < touched_.size(); ++i) {
      if (i + kAhead < touched_.size()) {
        const Row& later = rows_[touched_[i + kAhead]];
        __builtin_prefetch(later.weights, 1);
        __builtin_prefetch(later.state, 1);
      }
      Row& row = rows_[touched_[i]];
      const float* sum = &sums_[i * DIM];
      for (int d = 0; d < DIM; ++d) {
        row.state[d] += sum[d] * sum[d];
        row.weights[d] -= rate_ * sum[d] / std::sqrt(row.state[d]);
      }
    }
  }

 private:
  uint64_t Slot(int64_t id) const { return (static_cast<uint64_t>(id) * kOdd) >> shift_; }

  int64_t Find(int64_t id) {
    uint64_t slot = Slot(id);
    while (entries_[slot].key != id) {
      if (entries_[slot].key < 0) return Insert(id, slot);
      slot = (slot + 1) & mask_;
    }
    return entries_[slot].row;
  }

  int64_t Insert(int64_t id, uint64_t slot) {
    const int64_t number = rows_.size();
    entries_[slot] = Entry{id, number};
    Row row;
    std::memcpy(row.weights, initial_ + id * DIM, sizeof(row.weights));
    for (float& state : row.state) state = accumulator_;
    rows_.push_back(row);
    place_.push_back(0);
    seen_.push_back(0);
    return number;
  }

  const float* initial_;
  const float rate_, accumulator_;
  int shift_;
  uint64_t mask_;
  std::vector<Entry> entries_;
  std::vector<Row> rows_;
  std::vector<int32_t> place_, seen_;  // A row's position in a batch.
  std::vector<int64_t> numbers_, touched_;
  std::vector<float> sums_;
  int32_t step_ = 0;
};

std::vector<std::unique_ptr<Table>> tables;

// Calls a function with a table and the bounds of a run of ids, for all runs.
template <typename Function>
void ForRuns(int64_t count, Function function) {
  const int64_t parts = tables.size();
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < parts; ++i) {
    threads.emplace_back(function, tables[i].get(), count * i / parts,
                         count * (i + 1) / parts);
  }
  function(tables[0].get(), 0, count / parts);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

extern "C" {

void make(int64_t rows, const float* initial, float rate, float accumulator, int parts) {
  tables.clear();
  for (int i = 0; i < parts; ++i) {
    tables.push_back(std::make_unique<Table>(rows, initial, rate, accumulator));
  }
}

void look_up(const int64_t* ids, int64_t count, float* found) {
  ForRuns(count, [=](Table* table, int64_t begin, int64_t end) {
    table->LookUp(ids + begin, end - begin, found + begin * DIM);
  });
}

// The gradient of an embedding is the embedding.
void step(const int64_t* ids, int64_t count, float* found) {
  ForRuns(count, [=](Table* table, int64_t begin, int64_t end) {
    table->LookUp(ids + begin, end - begin, found + begin * DIM);
    table->Update(found + begin * DIM, end - begin);
  });
}
}
