/** Explanations: why a user may or may not see something. They are for administrators. */

import {
  type MessageReader, count, flag, listOf, messageOf, moment, nested, optional, text, textOrNone, wordOf, wordOrNone,
} from "./reading.js";

/** Why a user may or may not see a chunk, or holds a relation. */
export interface Explanation {
  /** The decision. A question that could not be decided is not allowed. */
  readonly allowed: boolean;
  /** The reason why the question could not be decided; `undefined` if it was. */
  readonly undecided: string | undefined;
  readonly user: string;
  readonly relation: string;
  /** The object of the question; the guard if the request named a chunk. */
  readonly object: string;
  readonly authorizationModelId: string;
  /** The step that answers the question itself. */
  readonly root: ExplanationStep;
  /** The moment as of which the explanation holds: every change before it counts. */
  readonly asOf: Date | undefined;
}

/** One thing that the evaluator looked at, and its outcome. One of the properties from `relation` to `notAsked` is set. */
export interface ExplanationStep {
  readonly outcome: Outcome;
  /** Whether the outcome of the step above rests on this one. */
  readonly hasSay: boolean;
  /** A relation of an object. Its steps are the operands of the relation's definition. */
  readonly relation: RelationStep | undefined;
  /** A set operation within a definition. */
  readonly operation: OperationStep | undefined;
  /** The tuples of a relation, where they are one operand of a set operation. */
  readonly tuples: string | undefined;
  /** A relation of other objects, which tuples of this object name. */
  readonly parents: string | undefined;
  /** A tuple that names the user, or one that does not count because of its condition. */
  readonly tuple: FoundTuple | undefined;
  /** No tuple leads any further. */
  readonly noTuple: NoTupleStep | undefined;
  /** A parent whose type lacks the relation. */
  readonly notAsked: NotAskedStep | undefined;
  readonly steps: readonly ExplanationStep[];
  /** The number of further steps that were looked at and are left out. */
  readonly omitted: number;
}

/** The outcome of a step. Only `holds` allows. */
export type Outcome = "holds" | "does_not_hold" | "cycle" | "condition_failed" | "too_deep";

/** The way in which an outcome is made of others. */
export type SetOperator = "union" | "intersection" | "difference";

/** The reason why a relation has no steps. */
export type ClosedReason = "itself" | "out_of_reach" | "cycle" | "too_deep" | "limit";

export interface RelationStep {
  readonly relation: string;
  readonly object: string;
  /** The definition of the relation, in the modeling language. */
  readonly definition: string;
  readonly operator: SetOperator | undefined;
  /** The tuple that led here, through a userset or a parent. */
  readonly through: FoundTuple | undefined;
  /** `undefined` if the relation has steps. */
  readonly closed: ClosedReason | undefined;
}

export interface OperationStep {
  readonly operator: SetOperator | undefined;
  readonly definition: string;
}

export interface NoTupleStep {
  readonly relation: string;
  readonly object: string;
  /** The users that would have counted. */
  readonly lookedFor: readonly string[];
}

export interface NotAskedStep {
  /** The tuple that names the parent. */
  readonly tuple: FoundTuple | undefined;
  readonly relation: string;
}

export interface FoundTuple {
  readonly user: string;
  readonly relation: string;
  readonly object: string;
  /** The condition under which the tuple counts; it always counts if there is none. */
  readonly condition: FoundCondition | undefined;
}

/** A condition with the values that it was evaluated with. */
export interface FoundCondition {
  readonly name: string;
  /** The expression, in CEL. */
  readonly expression: string;
  readonly inputs: readonly ConditionInput[];
  readonly met: boolean;
  /** The reason why the condition cannot be evaluated; `undefined` if it can. */
  readonly error: string | undefined;
}

export interface ConditionInput {
  readonly parameter: string;
  /** The value as JSON. A long one is cut. */
  readonly value: string;
  readonly source: InputSource | undefined;
}

/** The source of the value of a parameter. */
export type InputSource = "tuple" | "request" | "missing";

export const outcome = wordOf<Outcome>({
  EXPLANATION_OUTCOME_HOLDS: "holds",
  EXPLANATION_OUTCOME_DOES_NOT_HOLD: "does_not_hold",
  EXPLANATION_OUTCOME_CYCLE: "cycle",
  EXPLANATION_OUTCOME_CONDITION_FAILED: "condition_failed",
  EXPLANATION_OUTCOME_TOO_DEEP: "too_deep",
});

export const setOperator = wordOrNone<SetOperator>("SET_OPERATOR_UNSPECIFIED", {
  SET_OPERATOR_UNION: "union",
  SET_OPERATOR_INTERSECTION: "intersection",
  SET_OPERATOR_DIFFERENCE: "difference",
});

export const closedReason = wordOrNone<ClosedReason>("CLOSED_REASON_UNSPECIFIED", {
  CLOSED_REASON_ITSELF: "itself",
  CLOSED_REASON_OUT_OF_REACH: "out_of_reach",
  CLOSED_REASON_CYCLE: "cycle",
  CLOSED_REASON_TOO_DEEP: "too_deep",
  CLOSED_REASON_LIMIT: "limit",
});

export const inputSource = wordOrNone<InputSource>("INPUT_SOURCE_UNSPECIFIED", {
  INPUT_SOURCE_TUPLE: "tuple",
  INPUT_SOURCE_REQUEST: "request",
  INPUT_SOURCE_MISSING: "missing",
});

export const conditionInput = messageOf<ConditionInput>("ragward.retrieval.v1.ConditionInput", {
  parameter: text,
  value: text,
  source: inputSource,
});

export const foundCondition = messageOf<FoundCondition>("ragward.retrieval.v1.FoundCondition", {
  name: text,
  expression: text,
  inputs: listOf(conditionInput),
  met: flag,
  error: textOrNone,
});

export const foundTuple = messageOf<FoundTuple>("ragward.retrieval.v1.FoundTuple", {
  user: text,
  relation: text,
  object: text,
  condition: optional(foundCondition),
});

export const relationStep = messageOf<RelationStep>("ragward.retrieval.v1.RelationStep", {
  relation: text,
  object: text,
  definition: text,
  operator: setOperator,
  through: optional(foundTuple),
  closed: closedReason,
});

export const operationStep = messageOf<OperationStep>("ragward.retrieval.v1.OperationStep", {
  operator: setOperator,
  definition: text,
});

export const noTupleStep = messageOf<NoTupleStep>("ragward.retrieval.v1.NoTupleStep", {
  relation: text,
  object: text,
  lookedFor: listOf(text),
});

export const notAskedStep = messageOf<NotAskedStep>("ragward.retrieval.v1.NotAskedStep", {
  tuple: optional(foundTuple),
  relation: text,
});

export const explanationStep: MessageReader<ExplanationStep> = messageOf<ExplanationStep>("ragward.retrieval.v1.ExplanationStep", {
  outcome,
  hasSay: flag,
  relation: optional(relationStep),
  operation: optional(operationStep),
  tuples: optional(text),
  parents: optional(text),
  tuple: optional(foundTuple),
  noTuple: optional(noTupleStep),
  notAsked: optional(notAskedStep),
  steps: listOf(nested(() => explanationStep)),
  omitted: count,
});

export const explanation = messageOf<Explanation>("ragward.retrieval.v1.ExplainResponse", {
  allowed: flag,
  undecided: textOrNone,
  user: text,
  relation: text,
  object: text,
  authorizationModelId: text,
  root: explanationStep,
  asOf: optional(moment),
});
