#include "cli/exporting.h"

#include <fmt/format.h>

#include "cli/progress.h"
#include "model/fingerprint.h"
#include "model/quote.h"

namespace espalier {

Result<ExportOptions> ExportOptionsFor(const Model& model, const ProfileInUse& use, const Plan& plan,
                                       std::optional<double> loss,
                                       std::vector<std::pair<std::string, std::string>> more) {
  ESPALIER_ASSIGN_OR_RETURN(const std::string fingerprint, Fingerprint(model));
  ExportOptions options;
  options.means = use.means.get();
  options.provenance = {{"version", ESPALIER_VERSION},
                        {"source.name", model.display_name()},
                        {"source.fingerprint", fingerprint},
                        {"plan", plan.ToText()},
                        {"ablation", AblationName(use.ablation)}};
  if (loss) {
    options.provenance.emplace_back("loss_nats", fmt::format("{}", *loss));
  }
  options.provenance.insert(options.provenance.end(), more.begin(), more.end());
  return options;
}

Status WriteExport(const GgufExport& prepared, const std::string& path, const ProfileInUse& use,
                   const std::atomic<bool>* stop) {
  ESPALIER_RETURN_IF_ERROR(RefuseProfile(path, use.path));
  ProgressBar bar(fmt::format("writing {}", Printable(path, 40)));
  return prepared.WriteTo(
      path, [&](uint64_t done, uint64_t total) { bar.Update(done, total); }, stop);
}

}  // namespace espalier
