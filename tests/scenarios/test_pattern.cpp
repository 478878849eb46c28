// Patterns: unions of primitives, layer by layer.
#include "scenarios/pattern.hpp"

#include <set>

#include "tests/catch.hpp"
#include "tests/scenarios/primitives.hpp"

using namespace orrery;

namespace {

using Kind = Primitive::Kind;

Primitive sink(Index first) {
  return {.kind = Kind::sink, .first = first};
}

/// Keys query `q` scores in the only class of a pattern of one layer.
std::set<Index> keys_of(const std::vector<Primitive>& primitives, Index tokens, bool causal, Index q) {
  const Mask mask = Pattern(primitives, 1).mask(0, tokens, causal, {});
  std::set<Index> keys;
  for (Index k = 0; k < tokens; ++k) {
    if (mask.allows(q, k)) keys.insert(k);
  }
  return keys;
}

using Keys = std::set<Index>;

}  // namespace

TEST_CASE("full attends every key, or every earlier one and itself") {
  CHECK(keys_of({{}}, 5, false, 2) == Keys{0, 1, 2, 3, 4});
  CHECK(keys_of({{}}, 5, true, 2) == Keys{0, 1, 2});
}

TEST_CASE("a window attends left earlier tokens, itself and right later ones") {
  CHECK(keys_of({window(2)}, 20, true, 10) == Keys{8, 9, 10});
  CHECK(keys_of({window(2, 1)}, 20, false, 10) == Keys{8, 9, 10, 11});
  CHECK(keys_of({window(2, 1)}, 20, true, 10) == Keys{8, 9, 10});
  CHECK(keys_of({window(0)}, 20, true, 10) == Keys{10});
  CHECK(keys_of({window(2)}, 20, true, 1) == Keys{0, 1});
}

TEST_CASE("a stride attends its first multiples, or all, on both sides unless causal") {
  CHECK(keys_of({stride(4, 1)}, 20, true, 10) == Keys{6});
  CHECK(keys_of({stride(4, 2)}, 20, true, 10) == Keys{2, 6});
  CHECK(keys_of({stride(4, 0)}, 20, true, 11) == Keys{3, 7});
  CHECK(keys_of({stride(4, 0)}, 20, false, 11) == Keys{3, 7, 15, 19});
  CHECK(keys_of({stride(4, 1)}, 20, false, 11) == Keys{7, 15});
  CHECK(keys_of({stride(4, 1)}, 20, true, 3) == Keys{});
  CHECK(keys_of({stride(1, 2)}, 20, true, 10) == Keys{8, 9});
}

TEST_CASE("a gated skip scores no key; it reads the value one period back") {
  const std::vector<Primitive> pi = {window(1), {.kind = Kind::gated_skip, .period = 4}};
  CHECK(keys_of(pi, 20, true, 10) == Keys{9, 10});
  const Mask values = Pattern(pi, 1).value_mask(0, 20, true, {});
  for (Index k = 0; k < 20; ++k) CHECK(values.allows(10, k) == (k == 6 || k == 9 || k == 10));
  CHECK_FALSE(values.allows(3, 0));
  CHECK(Pattern(pi, 1).describe() == "window(left 1) + gated_skip(4)");
}

TEST_CASE("a sink attends the first tokens of the document, none of them later if causal") {
  CHECK(keys_of({sink(3)}, 20, true, 10) == Keys{0, 1, 2});
  CHECK(keys_of({sink(3)}, 20, true, 1) == Keys{0, 1});
  CHECK(keys_of({sink(3)}, 20, false, 1) == Keys{0, 1, 2});
  CHECK(keys_of({sink(2), sink(4)}, 20, true, 10) == Keys{0, 1, 2, 3});
  CHECK(keys_of({sink(4), sink(2)}, 20, true, 10) == Keys{0, 1, 2, 3});
}

TEST_CASE("a union attends each key once") {
  CHECK(keys_of({window(4), stride(2, 3), sink(1)}, 20, true, 10) == Keys{0, 4, 6, 7, 8, 9, 10});
  const Mask mask = Pattern({window(4), stride(2, 3), sink(1)}, 1).mask(0, 20, true, {});
  CHECK(mask.pairs(TokenSet({{10, 1, 1}}), TokenSet({{0, 20, 1}})) == 7);
}

TEST_CASE("a window beyond the sequence is full attention and a period beyond it no skip") {
  const Index huge = Index{1} << 40;
  for (Index q = 0; q < 9; ++q) {
    CHECK(keys_of({window(huge)}, 9, true, q) == keys_of({{}}, 9, true, q));
    CHECK(keys_of({window(huge, huge)}, 9, false, q) == keys_of({{}}, 9, false, q));
    CHECK(keys_of({window(2), stride(huge, 0)}, 9, true, q) == keys_of({window(2)}, 9, true, q));
    CHECK(keys_of({window(2), stride(9, 1)}, 9, true, q) == keys_of({window(2)}, 9, true, q));
    CHECK(keys_of({stride(2, huge)}, 9, true, q) == keys_of({stride(2, 0)}, 9, true, q));
    CHECK(keys_of({sink(huge)}, 9, true, q) == keys_of({{}}, 9, true, q));
  }
}

TEST_CASE("layers with the same primitives share a class, numbered in order of first use") {
  Primitive skip = stride(8, 1), first = sink(2);
  skip.layers = {2, 4, 5};
  first.layers = {5};
  const Pattern pattern({window(3), skip, first}, 6);
  CHECK(pattern.classes() == 3);
  std::vector<int> classes;
  for (int layer = 0; layer < 6; ++layer) classes.push_back(pattern.class_of_layer(layer));
  CHECK(classes == std::vector<int>{0, 1, 0, 1, 2, 0});
  CHECK(pattern.describe(0) == "window(left 3)");
  CHECK(pattern.describe(1) == "window(left 3) + stride(8, count 1)");
  CHECK(pattern.describe(2) == "window(left 3) + stride(8, count 1) + sink(2)");
  CHECK_FALSE(pattern.mask(0, 32, true, {}).allows(20, 12));
  CHECK(pattern.mask(1, 32, true, {}).allows(20, 12));
  CHECK_FALSE(pattern.mask(1, 32, true, {}).allows(20, 1));
  CHECK(pattern.mask(2, 32, true, {}).allows(20, 1));
  CHECK(Pattern({{}}, 1).describe(0) == "full");
  CHECK(Pattern({window(1, 2), stride(4, 0)}, 1).describe(0) == "window(left 1, right 2) + stride(4, all)");
}

TEST_CASE("a layer without any pattern is refused by its number") {
  Primitive odd = window(3);
  odd.layers = {1, 3};
  CHECK_THROWS_WITH(Pattern({odd}, 3), ContainsSubstring("layer 2 attends to nothing"));
  CHECK_THROWS_WITH(Pattern({}, 3), ContainsSubstring("layer 1 attends to nothing"));
}

TEST_CASE("numbers that make no sense are refused by name") {
  CHECK_THROWS_WITH(check(window(-1), 1), "left = -1 is negative (it counts earlier tokens), write 0 or more");
  CHECK_THROWS_WITH(check(window(1, -2), 1), ContainsSubstring("right = -2 is negative"));
  CHECK_THROWS_WITH(check(stride(0, 1), 1), ContainsSubstring("period = 0 is not positive"));
  CHECK_THROWS_WITH(check(stride(-3, 1), 1), ContainsSubstring("period = -3 is not positive"));
  CHECK_THROWS_WITH(check(stride(3, -1), 1), ContainsSubstring("count = -1 is negative"));
  CHECK_THROWS_WITH(check(sink(-5), 1), ContainsSubstring("first = -5 is negative"));
  Primitive late = window(3);
  late.layers = {1, 4};
  CHECK_THROWS_WITH(check(late, 3), "layer 4 does not exist (the model has layers 1 to 3), write one of them");
  late.layers = {0};
  CHECK_THROWS_WITH(check(late, 3), ContainsSubstring("layer 0 does not exist"));
  late.layers = {1, 3};
  CHECK_NOTHROW(check(late, 3));
  CHECK_NOTHROW(check(window(0, 0), 1));
}
