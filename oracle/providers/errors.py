"""Error codes of the providers room: everything a network or its adapter can do wrong, and what may be done next."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

UNREACHABLE = ErrorCode(
    "ORC-PROVIDER-001",
    "Provider cannot be reached",
    "No connection could be made, so nothing was sent: a wrong address, an unknown name, a closed port, TLS.",
    "It is tried again. If it lasts, check `base_url` and the network of this machine.",
    Verdict.RETRY,
)
UNAVAILABLE = ErrorCode(
    "ORC-PROVIDER-002",
    "Provider is unavailable",
    "The provider answered that it cannot serve now (overloaded, loading a model, an internal error).",
    "It is tried again. If it lasts, look at the provider's status page, or add a fallback to the route.",
    Verdict.RETRY,
)
RATE_LIMITED = ErrorCode(
    "ORC-PROVIDER-003",
    "Provider limits the rate",
    "More calls were made than this key or address is allowed.",
    "It is tried again later. Lower `requests_per_second` or `max_concurrent_jobs`, or ask for a higher limit.",
    Verdict.RETRY,
)
NO_ANSWER = ErrorCode(
    "ORC-PROVIDER-004",
    "Answer lost after the call was sent",
    "The connection timed out, was cut, or carried something unreadable after a call that spends money had gone out.",
    "Nothing to do by hand: it counts as a purchase that may have happened until a look-up says otherwise.",
    Verdict.UNKNOWN,
)
UNREADABLE_ANSWER = ErrorCode(
    "ORC-PROVIDER-005",
    "Unreadable answer",
    "A call that may be repeated at will was answered with HTML, broken JSON or fields that are not as documented.",
    "It is tried again. If it lasts, `base_url` points at something else than the provider's API.",
    Verdict.RETRY,
)
ANSWER_TOO_LARGE = ErrorCode(
    "ORC-PROVIDER-006",
    "Answer too large",
    "The answer is larger than this adapter reads into memory.",
    "Ask for fewer output tokens, or raise `max_answer_bytes`.",
)
CREDENTIALS_REFUSED = ErrorCode(
    "ORC-PROVIDER-007",
    "Credentials refused",
    "The API key is wrong, revoked, expired, or not valid at this address.",
    "Make a new key at the provider and put it where `api_key_file`, `api_key_env` or `api_key` says.",
)
NOT_PERMITTED = ErrorCode(
    "ORC-PROVIDER-008",
    "Not permitted",
    "The key is valid, but may not do this: a missing scope, a model or a market it is not allowed to use.",
    "Give the key the scope that is named, or choose another model or market.",
)
OUT_OF_CREDIT = ErrorCode(
    "ORC-PROVIDER-009",
    "Out of credit",
    "The account has no credit left, or the key has reached its spending limit.",
    "Top up the account, or raise the key's limit.",
)
MODEL_UNAVAILABLE = ErrorCode(
    "ORC-PROVIDER-010",
    "Model not available",
    "The provider does not offer this model, no longer offers it, or not to this key.",
    "`oracle providers show NAME` lists what the provider offers; correct the route.",
)
REQUEST_REFUSED = ErrorCode(
    "ORC-PROVIDER-011",
    "Request refused",
    "The provider says that the request itself is wrong: a parameter, its length, its form.",
    "Repeating it cannot help. The detail names what the provider objected to.",
)
WRONG_ADDRESS = ErrorCode(
    "ORC-PROVIDER-012",
    "Wrong address",
    "The address answers with a redirect, or is none. Redirects are not followed: they would carry the key elsewhere.",
    "Correct `base_url`.",
)
BUSY = ErrorCode(
    "ORC-PROVIDER-013",
    "Too many unfinished jobs",
    "The adapter holds as many unfetched jobs as it may keep in memory, so it accepted no other.",
    "It is tried again. Raise `max_kept_jobs` if it lasts.",
    Verdict.RETRY,
)
NOT_SENT = ErrorCode(
    "ORC-PROVIDER-014",
    "Never sent",
    "The time allowed for the job ran out while it waited for its turn, before anything was sent.",
    "It is tried again. Raise `requests_per_second` or `max_concurrent_jobs`, or spread the load over more providers.",
    Verdict.RETRY,
)
ANSWER_REFUSED = ErrorCode(
    "ORC-PROVIDER-015",
    "Model refused to answer",
    "A content filter stopped the answer, the model declined, or it called a tool instead of answering.",
    "The requester has to ask something else, or another model.",
)
ANSWER_CUT = ErrorCode(
    "ORC-PROVIDER-016",
    "Answer cut short",
    "The model stopped before the tokens it was allowed: its context was full, or reasoning used them all.",
    "Allow more output tokens, shorten the input, or use a model with a larger context.",
)
ANSWER_EMPTY = ErrorCode(
    "ORC-PROVIDER-017",
    "Empty answer",
    "The model finished without a word.",
    "It is tried again. If it lasts, the model does not suit the prompt.",
    Verdict.RETRY,
)
ANSWER_INCOMPLETE = ErrorCode(
    "ORC-PROVIDER-018",
    "Incomplete answer",
    "The answer carries no text, or does not say that it is finished, so it must not be hashed or paid for.",
    "It is tried again. If it lasts, the server does not follow the OpenAI wire format.",
    Verdict.RETRY,
)
JOB_UNKNOWN = ErrorCode(
    "ORC-PROVIDER-019",
    "Job not known here",
    "The adapter holds no such job, or none that has succeeded: it was started by an earlier process, or dropped.",
    "Nothing to do by hand: it counts as a purchase that may have happened.",
    Verdict.UNKNOWN,
)
PRICE_UNKNOWN = ErrorCode(
    "ORC-PROVIDER-020",
    "Price not known",
    "A cost cannot be stated in lamports: the price of SOL, of NOS or of the model is not known.",
    "Set `sol_usd` (and `nos_usd` for Nosana) or its `…_url` under `[rates]`, and the price of the model.",
)
SECRET_MISSING = ErrorCode(
    "ORC-PROVIDER-021",
    "Secret missing",
    "The file or environment variable that should hold a provider's secret is not there, or is empty.",
    "Create it, or correct the `…_file` or `…_env` option that names it.",
)
SETTINGS_INVALID = ErrorCode(
    "ORC-PROVIDER-022",
    "Provider settings are wrong",
    "An option of the provider is unknown, missing, or out of range.",
    "Correct the option that the detail names; `oracle.example.toml` lists them all.",
)
PRIVATE_REFUSED = ErrorCode(
    "ORC-PROVIDER-023",
    "Private request refused",
    "Prompts and answers of this network lie in the open, where anyone can read them.",
    "Route private requests to a provider that keeps them to itself.",
)
INPUT_TOO_LARGE = ErrorCode(
    "ORC-PROVIDER-024",
    "Input too large for this network",
    "The prompt travels in an environment variable of a container, which Linux limits to 131,071 bytes.",
    "Shorten the prompt, or route it to a chat API.",
)
DEFINITION_INVALID = ErrorCode(
    "ORC-PROVIDER-025",
    "Job definition is not valid",
    "The definition breaks a rule that hosts check, so a job made of it would be paid for and fail.",
    "Correct the model, the image or the template that the detail names.",
)
NO_MARKET = ErrorCode(
    "ORC-PROVIDER-026",
    "No market fits",
    "No GPU market is allowed, large enough, cheap enough and free enough at once.",
    "Raise `max_usd_per_hour` or `max_queued_jobs`, lower `min_vram_gb`, or name other `markets`.",
    Verdict.RETRY,
)
MARKET_REFUSED = ErrorCode(
    "ORC-PROVIDER-027",
    "Market takes no credits",
    "The market cannot be paid with credits, or is not open to this account.",
    "It is tried again on another market. Name the markets that you may use in `markets`.",
    Verdict.RETRY,
)
PURCHASE_CONFLICT = ErrorCode(
    "ORC-PROVIDER-028",
    "Purchase already made in another form",
    "The idempotency key was used before with another body, so a job may exist that this call cannot name.",
    "Nothing to do by hand: the job is looked up among those of the account.",
    Verdict.UNKNOWN,
)
PURCHASE_EXPIRED = ErrorCode(
    "ORC-PROVIDER-029",
    "Purchase expired unsent",
    "The provider prepared the purchase several times, and each time its transaction died before it landed.",
    "It is tried again.",
    Verdict.RETRY,
)
NOT_STARTED = ErrorCode(
    "ORC-PROVIDER-030",
    "No host took the job",
    "The job waited in the queue of its market for longer than `max_queue_seconds`; it was withdrawn.",
    "It is tried again. Choose a market with more hosts, or wait longer.",
    Verdict.RETRY,
)
JOB_FAILED = ErrorCode(
    "ORC-PROVIDER-031",
    "Job failed on its host",
    "The container could not be started, or ended with an error: no such image, no memory, a model that does not load.",
    "It is tried again, as another host may do better. If it lasts, check `image`, the model and `min_vram_gb`.",
    Verdict.RETRY,
)
HOST_FAILED = ErrorCode(
    "ORC-PROVIDER-032",
    "Host failed",
    "The host left, shut down, or never ended the job, or what it handed in is no result.",
    "It is tried again, on whichever host takes it.",
    Verdict.RETRY,
)
JOB_TIMED_OUT = ErrorCode(
    "ORC-PROVIDER-033",
    "Job ran out of time on its host",
    "The host stopped the job at the end of the time that was paid for.",
    "It is tried again. If it lasts, raise the route's `timeout_seconds` or choose a faster market.",
    Verdict.RETRY,
)
JOB_STOPPED = ErrorCode(
    "ORC-PROVIDER-034",
    "Job was stopped",
    "Someone with access to the account stopped or withdrew the job before it ended.",
    "It is tried again unless the request has ended.",
    Verdict.RETRY,
)
OUTPUT_DAMAGED = ErrorCode(
    "ORC-PROVIDER-035",
    "Output is damaged",
    "The job ended well, but what it printed is incomplete or does not match its own checksum: hosts lose log lines.",
    "It is tried again, on whichever host takes it.",
    Verdict.RETRY,
)
LOOK_UP_INCOMPLETE = ErrorCode(
    "ORC-PROVIDER-036",
    "Look-up not complete",
    "The account's jobs could not all be read, so a purchase may be among those that are missing.",
    "It is tried again. If it lasts, set `project`, or shorten `look_up_seconds`.",
    Verdict.RETRY,
)
LISTING_REFUSED = ErrorCode(
    "ORC-PROVIDER-040",
    "Jobs program refused the listing",
    "The program on chain would not list the job, for the reason that the detail names. Nothing was paid.",
    "It is tried again. If it lasts, check that the market takes jobs, and that `cluster` is the one you are on.",
    Verdict.RETRY,
)
SERVER_NOT_UP = ErrorCode(
    "ORC-PROVIDER-050",
    "Rented server did not come up",
    "The server that was rented ended, or did not serve in `boot_seconds`. It was given back; its time is paid.",
    "It is tried again after a pause that grows. If it lasts, check model, image, GPU memory and `boot_seconds`.",
    Verdict.RETRY,
)
NAME_TAKEN = ErrorCode(
    "ORC-PROVIDER-055",
    "Name of a server is taken",
    "The network says that the name of the server to be rented was given away before, and lists no such server.",
    "It is looked for, and another name is used where it does not show. Give each daemon a `name_prefix` of its own.",
    Verdict.UNKNOWN,
)
NEVER_SERVED = ErrorCode(
    "ORC-PROVIDER-060",
    "Container never served",
    "The container was paid for, but its server had no address, or did not come up, in the time for it; it was ended.",
    "It is tried again. Check `image`, `tag` and the model, or raise `max_start_seconds`: images take minutes.",
    Verdict.RETRY,
)
RATE_ABOVE_CAP = ErrorCode(
    "ORC-PROVIDER-061",
    "Node is dearer than allowed",
    "The node that took the job costs more an hour than `max_usd_per_hour`, so the job was ended at once.",
    "It is tried again. If it lasts, raise `max_usd_per_hour`, or allow other regions.",
    Verdict.RETRY,
)
BATCH_FAILED = ErrorCode(
    "ORC-PROVIDER-070",
    "Batch failed",
    "The batch that held the request did not pass its validation, or the provider gave up on the request in it.",
    "It is tried again, in another batch. If it lasts, check the model, and that `base_url` serves batches.",
    Verdict.RETRY,
)
BATCH_EXPIRED = ErrorCode(
    "ORC-PROVIDER-071",
    "Batch window is over",
    "The provider did not come to the request within the 24 hours of its batch; it is not charged.",
    "It is tried again where the deadline allows. Add a fallback to the route.",
    Verdict.RETRY,
)
ANSWER_MISSING = ErrorCode(
    "ORC-PROVIDER-072",
    "Answer missing from its batch",
    "The batch has ended, and neither of its files tells of the request.",
    "It is tried again. What the missing answer cost is not known, so its quote stays booked.",
    Verdict.RETRY,
)
PRICE_STALE = ErrorCode(
    "ORC-PROVIDER-080",
    "Price too old",
    "The price of SOL or NOS was not read, or not believed, for longer than `rates.max_age_seconds`.",
    "Nothing that needs it is bought until it is read again. Check the address that `[rates]` names, and its pointer.",
    Verdict.RETRY,
)
PRICE_DOUBTED = ErrorCode(
    "ORC-PROVIDER-081",
    "Price not believed",
    "A price was read that lies beyond its bounds, or too far from the one before it.",
    "A jump is believed when the next reading confirms it. If the price is right, correct its bounds under `[rates]`.",
    Verdict.RETRY,
)
