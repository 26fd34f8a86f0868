// The endpoints that answer at once: from the loop's snapshot, the tokenizer, or the budget. Completions are in
// completions.h. Thread rule: all from any thread.
#pragma once

#include <memory>
#include <string_view>

#include "server/api_error.h"
#include "server/http_server.h"
#include "server/served.h"

namespace espalier {

// --- about the model (llama-server, OpenAI)
HttpResponse ModelsAnswer(const Served& served);         // GET /v1/models: "meta" has context, plan, budget, footprint
HttpResponse PropsAnswer(const Served& served);          // GET /props
HttpResponse SlotsAnswer(const Served& served);          // GET /slots: n_parallel of them
HttpResponse TokenizerInfoAnswer(const Served& served);  // GET /tokenizer_info, as lm-evaluation-harness asks it

// --- text
ApiResult<HttpResponse> TokenizeAnswer(const Served& served, std::string_view body);
ApiResult<HttpResponse> DetokenizeAnswer(const Served& served, std::string_view body);
ApiResult<HttpResponse> ApplyTemplateAnswer(const Served& served, std::string_view body);

// --- Espalier's own
HttpResponse MemoryAnswer(const Served& served);  // GET /v1/espalier/memory
HttpResponse PlanAnswer(const Served& served);    // GET /v1/espalier/plan
HttpResponse StateAnswer(const Served& served);   // GET /v1/espalier/state: all of it, for the page
// PUT /v1/espalier/budget: 202 with the limit and the deadline, 409 with the minimum.
ApiResult<HttpResponse> SetBudgetAnswer(const Served& served, std::string_view body);
// GET /v1/espalier/events: the ring after ?after=N, or with Accept: text/event-stream that and all to come.
void AnswerEvents(const Served& served, const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder);

}  // namespace espalier
