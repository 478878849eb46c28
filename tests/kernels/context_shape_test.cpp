// Where tokens and heads lie on ranks: what travels must land where attention reads it.
#include "kernels/context_shape.hpp"

#include <map>
#include <numeric>

#include "../catch.hpp"

using namespace orrery;

namespace {

ContextShape shape(int ranks, int members, Layout layout, bool causal = true) {
  ContextShape s;
  s.ranks = ranks;
  s.members = members;
  s.n = 8;
  s.heads = 4 * members;
  s.kv_heads = 2 * members;
  s.head_dim = 8;
  s.causal = causal;
  s.layout = layout;
  return s;
}

std::vector<ContextShape> shapes() {
  std::vector<ContextShape> all;
  for (Layout layout : {Layout::contiguous, Layout::zigzag, Layout::striped}) {
    for (const auto& [ranks, members] : {std::pair{1, 1}, {4, 1}, {4, 4}, {4, 2}, {8, 2}, {8, 4}, {6, 3}}) {
      all.push_back(shape(ranks, members, layout));
    }
  }
  return all;
}

// Of attended token j of a group.
int64_t attended_token(const ContextShape& s, int group, int64_t j) {
  return global_token(s, group * s.members + static_cast<int>(j / s.n), j % s.n);
}

// A number that tells tensor, token, head and component apart.
int64_t label(bool values, int64_t token, int64_t head, int64_t c) {
  return ((values ? 1000 + token : token) * 100 + head) * 100 + c;
}

}  // namespace

TEST_CASE("every token of the sequence lies on one rank") {
  for (const ContextShape& s : shapes()) {
    std::vector<int> seen(static_cast<size_t>(s.n * s.ranks));
    for (int r = 0; r < s.ranks; ++r) {
      for (int64_t i = 0; i < s.n; ++i) ++seen.at(static_cast<size_t>(global_token(s, r, i)));
    }
    CHECK(std::count(seen.begin(), seen.end(), 1) == s.n * s.ranks);
  }
}

TEST_CASE("the blocks of all groups are the pairs of the whole mask") {
  for (const ContextShape& s : shapes()) {
    double pairs = 0;
    for (int g = 0; g < s.groups(); ++g) {
      for (int owner = 0; owner < s.groups(); ++owner) {
        if (const BlockWork w = block_work(s, g, owner); w.any) pairs += attention_shape(s, w).pairs();
      }
    }
    INFO("ranks " << s.ranks << " members " << s.members << " layout " << static_cast<int>(s.layout));
    CHECK(pairs == s.whole().pairs());
    CHECK(attention_shape(s, block_work(s, 0, 0)).heads * s.members == s.heads);
  }
}

TEST_CASE("gathered rows are in the order of the sequence") {
  for (const ContextShape& s : shapes()) {
    if (s.layout == Layout::striped) {
      CHECK_THROWS(gather_parts(s));
      continue;
    }
    int64_t rows = 0;
    for (const GatherPart& p : gather_parts(s)) {
      for (int g = 0; g < s.groups(); ++g) {
        for (int64_t i = 0; i < p.count; ++i) {
          CHECK(attended_token(s, g, p.own_from + i) == p.gathered_from + p.place(g, s.groups()) * p.count + i);
        }
        rows += p.count;
      }
    }
    CHECK(rows == s.n * s.ranks);
  }
}

TEST_CASE("a query against gathered keys sees those up to itself") {
  for (const ContextShape& s : shapes()) {
    if (s.layout == Layout::striped) continue;
    for (int g = 0; g < s.groups(); ++g) {
      int64_t queries = 0;
      for (const BlockWork& w : whole_sequence_work(s, g)) {
        const AttentionShape a = attention_shape(s, w);
        for (int64_t i = 0; i < w.q_count; ++i) {
          CHECK(a.first_key(i) == 0);
          CHECK(a.last_key(i) == attended_token(s, g, w.q_from + i));
        }
        CHECK(w.q_from == queries);
        queries += w.q_count;
        double pairs = 0;
        int64_t keys = 0;
        for (const BlockWork& part : before_and_diagonal(w)) {
          CHECK(part.k_from == keys);
          keys += part.k_count;
          pairs += attention_shape(s, part).pairs();
        }
        CHECK(keys == w.k_count);
        CHECK(pairs == a.pairs());
      }
      CHECK(queries == s.attended().n);
    }
  }
}

TEST_CASE("an all-to-all of packed tokens leaves all tokens of the group with a share of the heads") {
  for (const ContextShape& s : shapes()) {
    const Shard own = s.own(), attended = s.attended();
    for (int group = 0; group < s.groups(); ++group) {
      for (int heads_of = 0; heads_of < s.members; ++heads_of) {
        std::vector<int64_t> queries(static_cast<size_t>(attended.q_count()), -1);
        std::vector<int64_t> keys(static_cast<size_t>(2 * attended.kv_count()), -1);
        for (int from = 0; from < s.members; ++from) {
          // What `from` packed: [members][n][share], keys and values [members][2][n][share].
          const int rank = group * s.members + from;
          std::vector<int64_t> packed_q, packed_kv;
          for (int64_t m = 0; m < s.members; ++m) {
            for (int64_t i = 0; i < s.n; ++i) {
              for (int64_t at = 0; at < attended.row(); ++at) {
                packed_q.push_back(
                    label(false, global_token(s, rank, i), m * attended.heads + at / own.head_dim, at % own.head_dim));
              }
            }
            for (int64_t i = 0; i < 2 * s.n; ++i) {
              for (int64_t at = 0; at < attended.kv_row(); ++at) {
                packed_kv.push_back(label(i >= s.n, global_token(s, rank, i % s.n),
                                          m * attended.kv_heads + at / own.head_dim, at % own.head_dim));
              }
            }
          }
          for (const ExchangePiece& p : exchange_pieces(s, from, heads_of)) {
            auto& source = p.is_keys ? packed_kv : packed_q;
            auto& target = p.is_keys ? keys : queries;
            REQUIRE(p.packed_at + p.count <= static_cast<int64_t>(source.size()));
            REQUIRE(p.attended_at + p.count <= static_cast<int64_t>(target.size()));
            std::copy_n(source.begin() + p.packed_at, p.count, target.begin() + p.attended_at);
          }
        }
        int64_t at = 0;
        for (int64_t j = 0; j < attended.n; ++j) {
          for (int64_t h = 0; h < attended.heads; ++h) {
            for (int64_t c = 0; c < own.head_dim; ++c, ++at) {
              const int64_t head = heads_of * attended.heads + h;
              REQUIRE(queries[static_cast<size_t>(at)] == label(false, attended_token(s, group, j), head, c));
            }
          }
        }
        at = 0;
        for (int64_t j = 0; j < 2 * attended.n; ++j) {
          for (int64_t h = 0; h < attended.kv_heads; ++h) {
            for (int64_t c = 0; c < own.head_dim; ++c, ++at) {
              const int64_t head = heads_of * attended.kv_heads + h, token = attended_token(s, group, j % attended.n);
              REQUIRE(keys[static_cast<size_t>(at)] == label(j >= attended.n, token, head, c));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("heads that the members of a group cannot share evenly are refused") {
  ContextShape s = shape(4, 2, Layout::contiguous);
  CHECK_NOTHROW(require_even(s));
  s.kv_heads = 1;
  CHECK_THROWS(require_even(s));
  s.kv_heads = 4;
  s.ranks = 5;
  CHECK_THROWS(require_even(s));
}
