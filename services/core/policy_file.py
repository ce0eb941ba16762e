"""`lns-policy.yaml` and files given with `--policy`."""

from services.core.artifacts import families
from services.core.artifacts.documents import parse_artifact, parse_document, parse_value
from services.core.artifacts.rules import policy_problems
from services.core.artifacts.schemas import policy_file_validator
from services.core.artifacts.violations import RULE, json_path, to_violations
from services.core.errors import ArtifactInvalid, Violation
from services.core.policy import policy_of_spec
from services.core.run_plan import Policy


def parse_policy_file(data: bytes, *, name: str) -> Policy:
    """Parses a policy file: a flat policy, or the document of a policy artifact.

    Args:
        data: YAML or JSON, at most 1 MiB; an empty file is an empty policy.
        name: the file's name, for messages and as the origin of its routes.

    Raises:
        ArtifactInvalid: it is neither; `violations` has every problem by its JSON path.
    """
    document = {} if parse_value(data) is None else parse_document(data)
    if "kind" in document or "apiVersion" in document:
        return policy_of_spec(parse_artifact(data, families.POLICY).spec, origin=name)
    found = to_violations(policy_file_validator().errors(document))
    if not found:
        found = tuple(
            Violation(subject=json_path(path), description=problem, type=RULE)
            for path, problem in policy_problems(document, ())
        )
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ArtifactInvalid(
            f"{name} is not a valid policy: {found[0].subject} {found[0].description}{more}",
            violations=found,
        )
    return policy_of_spec(document, origin=name)
