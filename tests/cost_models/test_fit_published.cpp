// Fits of published rates on rows that a known profile produced.
#include "cost_models/fit_published.hpp"

#include <fmt/format.h>

#include "cost_models/lend.hpp"
#include "cost_models/predicted_kernels.hpp"
#include "tests/catch.hpp"
#include "tests/cost_models/measured_models.hpp"

using namespace orrery;

namespace {

/// 10 SMs of 8192 FLOPs a cycle at 1.5 GHz.
const GpuPeaks ten_sms{FlopsPerSecond::from_si(10 * 8192 * 1.5e9), BytesPerSecond::from_si(2e12), 10};

/// Cycles per list, full and masked tile, and the launch, as of a published kernel on `ten_sms`.
Profile truth(double factor) {
  Profile p = measured_profile();
  p.name = "truth";
  p.kernels->clock.maximum_clock = p.kernels->clock.burst_clock = number(1.5e9);
  p.kernels->clock.hbm_energy = number(0);
  for (AttentionModel& m : p.kernels->attention) {
    m.list_start = number(factor * 2000);
    m.full_tile = number(factor * 2500);
    m.masked_tile = number(factor * 3500);
    m.query_traffic = number(m.phase == Phase::backward ? 14 : 0);
    m.grouped_traffic = number(m.phase == Phase::backward ? 8 : 0);
    m.power = {number(0), number(0)};
  }
  p.kernels->streams.clear();
  return p;
}

std::vector<MeasuredKernel> rows_of(const Profile& profile, std::initializer_list<int> sizes) {
  std::string text = "gpu,schedule,pass,heads,kv_heads,head_dim,n_q,n_k,mask,window,causal,time_ms\n";
  for (const std::string pass : {"forward", "backward"}) {
    for (const std::string mask : {"full", "causal"}) {
      for (const int n : sizes) {
        text += fmt::format("any,kernel,{},8,8,128,{},{},{},,{},1\n", pass, n, n, mask, mask == "causal");
      }
    }
  }
  std::vector<MeasuredKernel> rows = rows_of_text(text, "published/rates.csv");
  for (MeasuredKernel& row : rows) row.time = predicted_time(row, ten_sms, profile);
  return rows;
}

}  // namespace

TEST_CASE("cycles of published rates come back, counted at the clock of the peak") {
  const std::vector<MeasuredKernel> rows = rows_of(truth(1), {512, 1024, 2048, 4096, 8192, 16384});
  const KernelFit fit = fit_published(rows, ten_sms, measured_profile(), std::nullopt);
  CHECK_THAT(fit.profile.kernels->clock.maximum_clock.value, WithinRel(1.5e9, 1e-12));
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    const AttentionModel& model = *fit.profile.kernels->attention_of(phase, 128);
    INFO(name_of(phase));
    CHECK_THAT(model.full_tile.value, WithinRel(2500, 0.01));
    CHECK_THAT(model.masked_tile.value, WithinRel(3500, 0.05));
    CHECK(model.full_tile.provenance == Provenance::fitted);
    CHECK(model.full_tile.source == "published/rates.csv");
  }
}

TEST_CASE("one row a pass says how much longer the cycles of the same kernel are on this GPU") {
  const Profile slower = truth(1.25);
  std::vector<MeasuredKernel> rows = rows_of(slower, {8192});
  std::erase_if(rows, [](const MeasuredKernel& row) { return row.shape.find("full") != std::string::npos; });
  REQUIRE(rows.size() == 2);
  const KernelFit fit = fit_published(rows, ten_sms, measured_profile(), LentProfile{truth(1), ten_sms});
  const AttentionModel& model = *fit.profile.kernels->attention_of(Phase::backward, 128);
  CHECK_THAT(model.full_tile.value, WithinRel(1.25 * 2500, 1e-3));
  CHECK_THAT(model.list_start.value, WithinRel(1.25 * 2000, 1e-3));
  CHECK_THAT(model.full_tile.source, ContainsSubstring("1.25 times truth, from 1 of published/rates.csv"));
  CHECK_THROWS_WITH(fit_published(rows, ten_sms, measured_profile(), std::nullopt),
                    ContainsSubstring("1 rows to fit 4 constants") && ContainsSubstring("--like"));
}

TEST_CASE("rows of one shape determine one constant, however many they are") {
  std::vector<MeasuredKernel> rows;
  for (int i = 0; i < 9; ++i) {
    for (MeasuredKernel& row : rows_of(truth(1.25), {8192})) {
      if (row.shape.find("causal") == std::string::npos) continue;
      row.time = row.time * (1 + 0.001 * i);
      rows.push_back(row);
    }
  }
  CHECK_THROWS_WITH(fit_published(rows, ten_sms, measured_profile(), std::nullopt),
                    ContainsSubstring("9 rows to fit 4 constants (each shape counts once)"));
  const KernelFit fit = fit_published(rows, ten_sms, measured_profile(), LentProfile{truth(1), ten_sms});
  CHECK_THAT(fit.profile.kernels->attention_of(Phase::forward, 128)->full_tile.value, WithinRel(1.25 * 2500, 0.01));
}

TEST_CASE("kernels that no row is of are lent at the same fraction of the HBM bandwidth") {
  Profile lender = truth(1);
  lender.kernels->streams.push_back({"gather", number(2e-6), number(3e12), {}, {}});
  const GpuPeaks twice{ten_sms.matrix, ten_sms.hbm * 2, ten_sms.sms};
  const KernelFit fit = fit_published(rows_of(truth(1), {512, 1024, 2048, 4096, 8192}), ten_sms, measured_profile(),
                                      LentProfile{lender, twice});
  CHECK_THAT(fit.profile.kernels->stream_of("gather")->bandwidth.value, WithinRel(1.5e12, 1e-12));
  CHECK(fit.profile.kernels->stream_of("gather")->bandwidth.provenance == Provenance::assumed);
}

TEST_CASE("a faster memory that is lent for takes as much power at its full rate: energy a byte times rate is kept") {
  Profile lender = truth(1);
  lender.kernels->clock.hbm_energy = number(6e-11);
  lender.kernels->clock.hbm_energy.source = "measured";
  const GpuPeaks faster{ten_sms.matrix, ten_sms.hbm * 1.5, ten_sms.sms};
  const double lent = lend(lender, ten_sms, faster).kernels->clock.hbm_energy.value;
  CHECK_THAT(lent * faster.hbm.si(), WithinRel(6e-11 * ten_sms.hbm.si(), 1e-12));
}

TEST_CASE("what is lent keeps its share of the peaks: rates that of HBM, cycles that of the tensor cores of an SM") {
  Profile lender = truth(1);
  lender.kernels->streams.push_back({"copy_kernel", number(2e-6), number(1e12), number(3e12), number(5e7)});
  lender.kernels->gemm.emplace().operand_rate = number(70);
  const GpuPeaks other{ten_sms.matrix * 2, ten_sms.hbm * 1.5, 4 * ten_sms.sms};
  const double cycles = 4.0 / 2;  // four times the SMs share twice the FLOPs
  const Profile profile = lend(lender, ten_sms, other);
  const MeasuredKernels &lent = *profile.kernels, &own = *lender.kernels;
  CHECK_THAT(lent.clock.tensor_flops_per_cycle.value, WithinRel(2 * own.clock.tensor_flops_per_cycle.value, 1e-12));
  CHECK_THAT(lent.streams.front().bandwidth.value, WithinRel(1.5 * 1e12, 1e-12));
  CHECK_THAT(lent.streams.front().cached_bandwidth.value, WithinRel(1.5 * 3e12, 1e-12));
  CHECK_THAT(lent.gemm->operand_rate.value, WithinRel(70 / cycles, 1e-12));
  for (Constant AttentionModel::*c :
       {&AttentionModel::list_start, &AttentionModel::full_tile, &AttentionModel::masked_tile})
    CHECK_THAT((lent.attention.front().*c).value, WithinRel(cycles * (own.attention.front().*c).value, 1e-12));
}

TEST_CASE("times that leave a constant where no kernel is are an error that names it and the rows") {
  std::vector<MeasuredKernel> rows = rows_of(truth(1), {512, 1024, 2048, 4096, 8192, 16384});
  const auto fit = [&] { return fit_published(rows, ten_sms, measured_profile(), std::nullopt); };
  SECTION("all the same") {
    for (MeasuredKernel& row : rows) row.time = Seconds::from_si(5e-3);
    CHECK_THROWS_WITH(fit(), ContainsSubstring("list_start at 1e+05 cycle") && ContainsSubstring("rates.csv:3"));
  }
  SECTION("seconds for milliseconds") {
    for (MeasuredKernel& row : rows) row.time = row.time * 1e-6;
    CHECK_THROWS_WITH(fit(), ContainsSubstring("tile at 1 cycle") && ContainsSubstring("rates.csv:3"));
  }
  SECTION("one a hundred times as long") {
    rows[7].time = rows[7].time * 100;
    CHECK_THROWS_WITH(fit(), ContainsSubstring(rows[7].place) && ContainsSubstring("in the unit of its column"));
  }
}

TEST_CASE("a constant of published rates that ends at a bound says so") {
  std::vector<MeasuredKernel> rows = rows_of(truth(1), {512, 1024, 2048, 4096, 8192, 16384});
  const std::size_t attention = rows.size();
  add_rows(
      MeasuredTable::parse("gpu,kernel,n_q,bytes,time_us\n"
                           "any,gather,1,1e6,0.5\nany,gather,1,1e7,9\nany,gather,1,1e8,99\nany,gather,1,1e9,1000\n",
                           "published/streams.csv"),
      rows);
  REQUIRE(rows.size() == attention + 4);
  // Of four sizes the first and last are fitted on: a line through them would begin below 0.
  const KernelFit fit = fit_published(rows, ten_sms, measured_profile(), std::nullopt);
  const StreamModel& gather = *fit.profile.kernels->stream_of("gather");
  CHECK(gather.launch.value == 0);
  CHECK_THAT(gather.launch.source, ContainsSubstring("(at its bound)"));
  CHECK_THAT(gather.bandwidth.source, !ContainsSubstring("bound"));
  CHECK(fit.profile.kernels->attention.front().launch.name == "attention.forward.launch");
}

TEST_CASE("a kind that no row was left out of has the lender's band, and twice that of another GPU") {
  std::vector<MeasuredKernel> rows = rows_of(truth(1.25), {8192});
  std::erase_if(rows, [](const MeasuredKernel& row) { return row.shape.find("full") != std::string::npos; });
  Profile lender = truth(1);
  lender.kernels->bands = {{"attention forward", 0.02, 0.04, 1, 1e15, 9},
                           {"copies >= 1 MB", 0.03, 0.06, 1, 1e15, 9},
                           {"merge", 0.06, 0.12, 1, 1e15, 0, "as another"},
                           {"gemm", 0.05, 0.1, 1, 1e15, 9}};
  const auto bands_from = [&](bool of_same_gpu) {
    return fit_published(rows, ten_sms, measured_profile(), LentProfile{lender, ten_sms, of_same_gpu})
        .profile.kernels.value();
  };
  CHECK(bands_from(true).band_of("copies >= 1 MB") == nullptr);  // no table of a link is lent
  lender.kernels->links = {{"nvlink", "copy_engine", "peer_copy one", {1, 1e9}, {1e-6, 1e-3}, "made"}};
  const MeasuredKernels same = bands_from(true);
  CHECK(same.band_of("attention forward")->inside == 0.02);
  CHECK(same.band_of("attention forward")->source == "as truth");
  CHECK(same.band_of("gemm") == nullptr);  // products are not lent
  CHECK(same.band_of("merge")->inside == 0.06);
  // Whatever its peaks: those of an H800 are an H100's.
  const MeasuredKernels other = bands_from(false);
  CHECK(other.band_of("merge")->inside == 0.12);
  CHECK(other.band_of("attention forward")->inside == 0.04);
  CHECK(other.band_of("attention forward")->outside == 0.08);
  CHECK(other.band_of("attention forward")->source == "twice that of truth");
  CHECK(other.band_of("copies >= 1 MB")->inside == 0.03);  // of the same link
}
