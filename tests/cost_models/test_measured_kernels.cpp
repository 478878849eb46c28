// Rows of measured files: what they say, what is predicted of them, and how well that is known.
#include "cost_models/measured_kernels.hpp"

#include "cost_models/predicted_kernels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

TEST_CASE("a kernel row reads from HBM unless its column or the file's header says warm; other words are errors") {
  const auto cold = [](const std::string& header, const std::string& cell) {
    return rows_of_text(header + "gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,cache,time_ms,status\n" +
                        "h200_sxm,kernel,forward,2,2,128,512,512,full," + cell + ",0.01,ok\n")
        .at(0)
        .attention.cold;
  };
  CHECK(cold("", ""));
  for (const std::string cell : {"flushed", "flushed_per_sample", "rotated"}) CHECK(cold("# cache = warm\n", cell));
  CHECK_FALSE(cold("", "warm"));
  CHECK_FALSE(cold("# cache = warm\n", ""));
  CHECK_THROWS_WITH(cold("", "hot"), ContainsSubstring("cache = \"hot\" is unknown"));
}

TEST_CASE("a stream behind a flush first writes half of L2, once for all launches of a sample") {
  Profile profile = measured_profile();
  const StreamModel stream{"copy_kernel", number(2e-6), number(4e12), number(8e12), number(5e7)};
  profile.kernels->streams = {stream};
  const auto seconds = [&](const std::string& cells) {
    const std::string columns = "gpu,kernel,width,bytes,cache,launches_per_sample,time_us,status\n";
    const auto rows = rows_of_text(columns + "h200_sxm,copy_kernel,1,1e9," + cells + ",250,ok\n");
    return predicted_time(rows.at(0), test_peaks, profile).si();
  };
  const double alone = stream.time(Bytes::from_si(1e9)).si(), written = 0.5 * 5e7 / 4e12;
  for (const std::string cells : {"rotated,4", "warm,1", ","}) CHECK(seconds(cells) == alone);
  CHECK_THAT(seconds("flushed,1"), WithinRel(alone + written, 1e-9));
  CHECK_THAT(seconds("flushed,"), WithinRel(alone + written, 1e-9));
  CHECK_THAT(seconds("flushed_per_sample,4"), WithinRel(alone + written / 4, 1e-9));
  CHECK_THROWS_WITH(seconds("flushed,0"), ContainsSubstring("launches_per_sample = 0 is not positive"));
}

TEST_CASE("pairs in tiles: a causal square computes the tiles up to the diagonal") {
  const TilePairs pairs = tile_pairs({512, 512, "causal", 0}, 128, 128);
  CHECK(pairs.executed == (1 + 2 + 3 + 4) * 128 * 128);
  CHECK(pairs.executed - pairs.masked == 512 * 513 / 2);
}

TEST_CASE("pairs in tiles: a window touches its width and the two ragged ends") {
  // 256 keys a query, itself included: a query tile touches three key tiles, at the start of the sequence fewer.
  const TilePairs pairs = tile_pairs({1024, 1024, "window", 256}, 128, 128);
  CHECK(pairs.executed == (1 + 2 + 6 * 3) * 128 * 128);
  CHECK(pairs.executed - pairs.masked == 1024 * 256 - 256 * 255 / 2);
  // With 129 keys the first query of a tile sees the first key of the tile before, and none before that.
  CHECK(tile_pairs({1024, 1024, "window", 129}, 128, 128).executed == (1 + 7 * 2) * 128 * 128);
  CHECK(tile_pairs({1024, 1024, "window", 130}, 128, 128).executed == (1 + 2 + 6 * 3) * 128 * 128);
}

TEST_CASE("a measured file keeps its header, quoted commas and line numbers") {
  const MeasuredTable table = MeasuredTable::parse("# gpu = X\n# date = today\na,b\n1,\"x, y\"\n\n2,z\n", "f.csv");
  CHECK(table.header("gpu") == "X");
  CHECK(table.rows() == 2);
  CHECK(table.text(0, "b") == "x, y");
  CHECK(table.place(1) == "f.csv:6");
  CHECK_THROWS_WITH(table.number(1, "b"), ContainsSubstring("f.csv:6") && ContainsSubstring("is not a number"));
  CHECK_THROWS_WITH(MeasuredTable::parse("a,b\n1\n", "f.csv"),
                    ContainsSubstring("f.csv:2") && ContainsSubstring("1 cells"));
  CHECK_THROWS_WITH(MeasuredTable::parse("a,b\n1,\"x\ny\"\n", "f.csv"),
                    ContainsSubstring("f.csv:2") && ContainsSubstring("a quote does not end"));
  // UTF-8 of one to four bytes; a lone or missing continuation, an overlong form and what is beyond Unicode are none.
  for (const char* good : {"e", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"})
    CHECK(MeasuredTable::parse(std::string("a\n") + good + "\n", "f.csv").text(0, "a") == good);
  for (const char* bad : {"\xe9", "\xa9", "\xe2\x82", "\xc0\xaf", "\xf5\x80\x80\x80", "\xc3("}) {
    CHECK_THROWS_WITH(MeasuredTable::parse(std::string("a\n") + bad + "\n", "f.csv"),
                      ContainsSubstring("f.csv:2") && ContainsSubstring("UTF-8"));
  }
}

TEST_CASE("an interval is that of the group's band, beyond its range or over other numbers of ranks the wider one") {
  Profile profile = measured_profile();
  profile.kernels->links.push_back({"wire", "nccl", "all_gather", {1e6, 1e9}, {1e-5, 1e-2}, ""});
  profile.kernels->bands.push_back({"collectives >= 1 MB", 0.05, 0.1, 1e6, 1e9, 9});
  const auto interval = [&](double bytes, int ranks) {
    MeasuredKernel row;
    row.kind = MeasuredKernel::Kind::message;
    row.link = "wire";
    row.mechanism = "nccl";
    row.op = "all_gather";
    row.ranks = ranks;
    row.bytes = Bytes::from_si(bytes);
    name_message(row, "");
    return interval_of(row, test_peaks, profile).value();
  };
  CHECK(interval(1e8, 2).half_width == 0.05);
  CHECK_FALSE(interval(1e8, 2).extrapolated);
  for (const KernelInterval& wide : {interval(1e8, 4), interval(2e9, 2)}) {
    CHECK(wide.half_width == 0.1);
    CHECK(wide.extrapolated);
  }
}

TEST_CASE("the interval of both passes together is the wider one of theirs, extrapolated if either is") {
  Profile profile = measured_profile();
  for (AttentionModel& model : profile.kernels->attention) model.full_tile.provenance = Provenance::fitted;
  const auto interval = [&](double forward, double backward, double most_backward) {
    profile.kernels->bands = {{"attention forward", forward, 2 * forward, 1, 1e15, 9},
                              {"attention backward", backward, 2 * backward, 1, most_backward, 9}};
    MeasuredKernel row;
    row.both_passes = true;
    row.attention = {.pairs = 4096.0 * 4096, .query_rows = 4096, .key_rows = 4096, .heads = 8, .kv_heads = 8};
    row.attention.head_dim = 128;
    return interval_of(row, test_peaks, profile).value();
  };
  CHECK(interval(0.05, 0.03, 1e15).half_width == 0.05);
  CHECK(interval(0.03, 0.05, 1e15).half_width == 0.05);
  CHECK_FALSE(interval(0.03, 0.05, 1e15).extrapolated);
  CHECK(interval(0.03, 0.05, 1).half_width == 2 * 0.05);
  CHECK(interval(0.03, 0.05, 1).extrapolated);
}

TEST_CASE("between measured head_dims an interval is wider by how far one is off that the others would predict") {
  Profile profile = measured_profile();
  AttentionModel narrow = profile.kernels->attention.front();  // 128 wide, forward
  narrow.head_dim = 64;
  narrow.full_tile = number(1500);
  profile.kernels->attention.push_back(narrow);
  for (AttentionModel& model : profile.kernels->attention) model.full_tile.provenance = Provenance::fitted;
  profile.kernels->bands.push_back({"attention forward", 0.05, 0.1, 1, 1e15, 9});
  MeasuredKernel row;
  row.group = "attention forward";
  row.work = 1e12;
  row.attention = {.pairs = 4096.0 * 4096, .query_rows = 4096, .key_rows = 4096, .heads = 8, .kv_heads = 8};
  row.attention.head_dim = 128;
  CHECK(interval_of(row, test_peaks, profile)->half_width == 0.05);
  row.attention.head_dim = 96;
  const double off = error_of_other_head_dims(row.attention, row.phase, row.regime, test_peaks, profile);
  REQUIRE(off > 0.2);
  CHECK(interval_of(row, test_peaks, profile)->half_width == 0.1 + off);
  CHECK(interval_of(row, test_peaks, profile)->extrapolated);
}
