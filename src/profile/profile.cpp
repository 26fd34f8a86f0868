#include "profile/profile.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace espalier {

const Archive* Profile::primary() const {
  if (primary_set.empty()) {
    return nullptr;
  }
  const auto found = std::find_if(archives.begin(), archives.end(),
                                  [&](const Archive& archive) { return archive.set().Key() == primary_set; });
  return found == archives.end() ? nullptr : &*found;
}

const Archive* Profile::FindArchive(const MeasurementSet& set) const {
  const auto found =
      std::find_if(archives.begin(), archives.end(), [&](const Archive& archive) { return archive.set() == set; });
  return found == archives.end() ? nullptr : &*found;
}

Archive& Profile::ArchiveFor(const MeasurementSet& set) {
  const auto found =
      std::find_if(archives.begin(), archives.end(), [&](const Archive& archive) { return archive.set() == set; });
  return found == archives.end() ? archives.emplace_back(set) : *found;
}

const Ranking* Profile::FindRanking(std::string_view method, int64_t kv_cells) const {
  // Ratios, by their logarithms; one cell where there are none, which is what methods without cells have.
  const auto distance = [&](const Ranking& ranking) {
    const auto log_cells = [](int64_t cells) { return std::log(static_cast<double>(std::max<int64_t>(cells, 1))); };
    return std::abs(log_cells(ranking.kv_cells) - log_cells(kv_cells));
  };
  const Ranking* nearest = nullptr;
  for (const Ranking& ranking : rankings) {
    if (ranking.method == method && (nearest == nullptr || distance(ranking) < distance(*nearest))) {
      nearest = &ranking;
    }
  }
  return nearest;
}

void Profile::Put(Ranking ranking) {
  const auto found = std::find_if(rankings.begin(), rankings.end(), [&](const Ranking& other) {
    return other.method == ranking.method && other.kv_cells == ranking.kv_cells && other.seed == ranking.seed;
  });
  if (found == rankings.end()) {
    rankings.push_back(std::move(ranking));
  } else {
    *found = std::move(ranking);
  }
}

void Profile::Put(Agent agent) {
  const auto found = std::find_if(agents.begin(), agents.end(), [&](const Agent& other) {
    return other.network == agent.network && other.reward == agent.reward && other.seed == agent.seed;
  });
  if (found == agents.end()) {
    agents.push_back(std::move(agent));
  } else {
    *found = std::move(agent);
  }
}

void Profile::Put(TextSketch text) {
  const auto found = std::find_if(texts.begin(), texts.end(),
                                  [&](const TextSketch& other) { return other.tokens_hash == text.tokens_hash; });
  if (found == texts.end()) {
    texts.push_back(std::move(text));
  } else {
    *found = std::move(text);
  }
}

}  // namespace espalier
