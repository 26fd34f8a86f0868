#include "server/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "server/endpoints.h"
#include "server/error_answer.h"
#include "server/metrics.h"

namespace espalier {
namespace {

// llama-server answers browsers of any origin; a key in a header is nothing that a browser would send by itself.
void AddCors(const std::string& origin, HttpHeaders& headers) {
  headers.emplace_back("Access-Control-Allow-Origin", origin.empty() ? "*" : origin);
  headers.emplace_back("Vary", "Origin");
}

// Adds headers to whatever is answered.
class CorsResponder final : public HttpResponder {
 public:
  CorsResponder(std::shared_ptr<HttpResponder> inner, std::string origin)
      : inner_(std::move(inner)), origin_(std::move(origin)) {}

  void Send(HttpResponse response) override {
    AddCors(origin_, response.headers);
    inner_->Send(std::move(response));
  }
  void Begin(HttpResponse head) override {
    AddCors(origin_, head.headers);
    inner_->Begin(std::move(head));
  }
  bool Write(std::string part) override { return inner_->Write(std::move(part)); }
  void End() override { inner_->End(); }
  void OnDisconnect(std::function<void()> callback) override { inner_->OnDisconnect(std::move(callback)); }
  bool disconnected() const override { return inner_->disconnected(); }
  void Post(std::function<void()> task) override { inner_->Post(std::move(task)); }

 private:
  const std::shared_ptr<HttpResponder> inner_;
  const std::string origin_;
};

HttpResponse Text(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(body);
  return response;
}

HttpResponse Page() {
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.headers = {{"Cache-Control", "no-cache"},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Content-Security-Policy",
                       "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
                       "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}};
  response.body = PageHtml();
  return response;
}

HttpResponse Preflight() {
  HttpResponse response = Text(200, "");
  response.headers = {{"Access-Control-Allow-Credentials", "true"},
                      {"Access-Control-Allow-Methods", "GET, POST, PUT, OPTIONS"},
                      {"Access-Control-Allow-Headers", "*"}};
  return response;
}

// What llama-server has and we do not.
const std::vector<std::string>& PathsNotHere() {
  static const std::vector<std::string> kPaths = {"/embedding",     "/embeddings",
                                                  "/v1/embeddings", "/rerank",
                                                  "/v1/rerank",     "/reranking",
                                                  "/infill",        "/lora-adapters",
                                                  "/v1/responses",  "/v1/messages",
                                                  "/v1/rerankings", "/models/load",
                                                  "/models/unload", "/v1/audio/transcriptions"};
  return kPaths;
}

}  // namespace

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  // The length of a key is no secret worth hiding, its bytes are.
  unsigned char difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(difference | (a[i] ^ (i < b.size() ? b[i] : ~a[i])));
  }
  return difference == 0;
}

Api::Api(ApiOptions options) : options_(std::move(options)) { AddRoutes(); }

void Api::Attach(const Served& served) {
  completions_ = std::make_unique<Completions>(served);
  served_.store(&served);
}

void Api::Detach() {
  served_.store(nullptr);
  completions_.reset();
}

Api::Handler Api::Now(std::function<HttpResponse()> answer) {
  return [answer = std::move(answer)](const HttpRequest&, const std::shared_ptr<HttpResponder>& responder) {
    responder->Send(answer());
  };
}

Api::Handler Api::OrError(std::function<ApiResult<HttpResponse>(const HttpRequest&)> answer) {
  return [answer = std::move(answer)](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
    ApiResult<HttpResponse> result = answer(request);
    responder->Send(IsError(result) ? ErrorAnswer(std::get<ApiError>(result)) : std::get<0>(std::move(result)));
  };
}

void Api::Add(const std::string& method, const std::vector<std::string>& paths, Handler handler) {
  for (const std::string& path : paths) {
    routes_.push_back({method, path, handler});
  }
}

void Api::AddCompletion(const std::vector<std::string>& paths, ApiKind kind) {
  Add("POST", paths, [this, kind](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
    if (draining_) {
      responder->Send(ErrorAnswer(UnavailableError("the server is shutting down")));
      return;
    }
    completions_->Answer(kind, request.body, responder);
  });
}

HttpResponse Api::Health() const {
  if (served_.load() == nullptr) {
    return ErrorAnswer(UnavailableError("Loading model"));
  }
  if (draining_) {
    return ErrorAnswer(UnavailableError("the server is shutting down"));
  }
  HttpResponse response;
  response.body = R"({"status":"ok"})";
  return response;
}

void Api::AddOpenRoutes() {
  Add("GET", {"/health", "/v1/health"}, Now([this] { return Health(); }));
  Add("GET", {"/livez"}, Now([] { return Text(200, "ok\n"); }));
  Add("GET", {"/readyz"}, Now([this] {
        return served_.load() == nullptr ? Text(503, "loading\n")
               : draining_.load()        ? Text(503, "draining\n")
                                         : Text(200, "ok\n");
      }));
  Add("GET", {"/", "/index.html"}, Now(Page));
  for (Route& route : routes_) {
    route.open = route.before_load = true;
  }
  const size_t n = routes_.size();
  Add("GET", {"/v1/models", "/models"}, Now([this] { return ModelsAnswer(*served_.load()); }));
  std::for_each(routes_.begin() + static_cast<ptrdiff_t>(n), routes_.end(), [](Route& route) { route.open = true; });
}

void Api::AddModelRoutes() {
  AddCompletion({"/v1/completions"}, ApiKind::kCompletion);
  AddCompletion({"/v1/chat/completions", "/chat/completions"}, ApiKind::kChat);
  AddCompletion({"/completion", "/completions"}, ApiKind::kNative);
  const auto with_body = [this](ApiResult<HttpResponse> (*answer)(const Served&, std::string_view)) {
    return OrError([this, answer](const HttpRequest& request) { return answer(*served_.load(), request.body); });
  };
  Add("POST", {"/tokenize", "/v1/tokenize"}, with_body(TokenizeAnswer));
  Add("POST", {"/detokenize", "/v1/detokenize"}, with_body(DetokenizeAnswer));
  Add("POST", {"/apply-template", "/v1/apply-template"}, with_body(ApplyTemplateAnswer));
  Add("PUT", {"/v1/espalier/budget"}, with_body(SetBudgetAnswer));
  const auto plain = [this](HttpResponse (*answer)(const Served&)) {
    return Now([this, answer] { return answer(*served_.load()); });
  };
  Add("GET", {"/props", "/v1/props"}, plain(PropsAnswer));
  Add("GET", {"/slots", "/v1/slots"}, plain(SlotsAnswer));
  Add("GET", {"/tokenizer_info", "/v1/tokenizer_info"}, plain(TokenizerInfoAnswer));
  Add("GET", {"/v1/espalier/memory"}, plain(MemoryAnswer));
  Add("GET", {"/v1/espalier/plan"}, plain(PlanAnswer));
  Add("GET", {"/v1/espalier/state"}, plain(StateAnswer));
}

void Api::AddEspalierRoutes() {
  Add("GET", {"/v1/espalier/events"},
      [this](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
        AnswerEvents(*served_.load(), request, responder);
      });
  if (!options_.metrics) {
    return;
  }
  Add("GET", {"/metrics"}, Now([this] {
        const Served& served = *served_.load();
        HttpResponse response;
        response.content_type = Metrics::kContentType;
        response.body = served.metrics->Text(served.loop->snapshot());
        return response;
      }));
}

void Api::AddRoutes() {
  AddOpenRoutes();
  AddModelRoutes();
  AddEspalierRoutes();
}

bool Api::Authorized(const HttpRequest& request) const {
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view key = request.header("Authorization");
  if (key.substr(0, kBearer.size()) == kBearer) {
    key.remove_prefix(kBearer.size());
  } else {
    key = request.header("X-Api-Key");
  }
  bool found = options_.keys.empty();
  for (const std::string& expected : options_.keys) {
    found |= EqualInConstantTime(expected, key);
  }
  return found;
}

std::optional<ApiError> Api::Refusal(const Route& route, const HttpRequest& request) const {
  if (!route.open && !Authorized(request)) {
    return AuthenticationError("Invalid API Key");
  }
  if (!route.before_load && served_.load() == nullptr) {
    return UnavailableError("Loading model");
  }
  return std::nullopt;
}

std::variant<const Api::Route*, HttpResponse> Api::Find(const HttpRequest& request) const {
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  std::string allowed;
  for (const Route& route : routes_) {
    if (route.path != request.path) {
      continue;
    }
    if (route.method != method) {
      allowed += (allowed.empty() ? "" : ", ") + route.method;
      continue;
    }
    const auto refusal = Refusal(route, request);
    if (!refusal) {
      return &route;
    }
    HttpResponse answer = ErrorAnswer(*refusal);
    if (refusal->status == 401) {
      answer.headers.emplace_back("WWW-Authenticate", "Bearer");
    }
    return answer;
  }
  const auto& not_here = PathsNotHere();
  if (!allowed.empty()) {
    HttpResponse answer =
        ErrorAnswer(MethodNotAllowed(fmt::format("{} is not allowed here: expected {}", request.method, allowed)));
    answer.headers.emplace_back("Allow", allowed + ", OPTIONS");
    return answer;
  }
  if (std::find(not_here.begin(), not_here.end(), request.path) != not_here.end()) {
    return ErrorAnswer(NotSupportedError(fmt::format("{}: this server does not do that", request.path)));
  }
  return ErrorAnswer(NotFoundError(fmt::format("no such path: {}", request.path)));
}

std::optional<HttpResponse> Api::Refuse(const HttpRequest& head) const {
  auto found = Find(head);
  auto* answer = std::get_if<HttpResponse>(&found);
  if (answer == nullptr) {
    return std::nullopt;
  }
  AddCors(std::string(head.header("Origin")), answer->headers);
  return std::move(*answer);
}

void Api::Handle(HttpRequest request, std::shared_ptr<HttpResponder> responder) {
  responder = std::make_shared<CorsResponder>(std::move(responder), std::string(request.header("Origin")));
  if (request.method == "OPTIONS") {
    responder->Send(Preflight());
    return;
  }
  auto found = Find(request);
  if (auto* answer = std::get_if<HttpResponse>(&found)) {
    responder->Send(std::move(*answer));
    return;
  }
  std::get<const Route*>(found)->handler(request, responder);
}

}  // namespace espalier
